"""Tests of the bench itself: that what it expects is right, and that it would notice."""
