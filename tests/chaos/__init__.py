"""Test the chaos bench itself: its expectations are correct, and it finds violations."""
