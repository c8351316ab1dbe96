"""The README, the pages in docs/ and the examples: what they say is so, and what they show runs."""
