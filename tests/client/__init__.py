"""Tests of the library that producers and subscribers install."""
