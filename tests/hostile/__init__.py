"""Tests of the bench that sends hostile input."""
