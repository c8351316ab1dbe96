"""Test the README, the pages in docs/ and the examples: claims are true, and code runs."""
