"""Tests of `deltaloom.Publisher`."""
