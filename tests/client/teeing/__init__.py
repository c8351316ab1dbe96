"""Tests of `deltaloom.teeing`."""
