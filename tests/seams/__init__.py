"""Tests of the seams: a kind of text takes one file, a destination one file and its name in a list."""
