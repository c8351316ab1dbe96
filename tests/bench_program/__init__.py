"""Test the benchmark."""
