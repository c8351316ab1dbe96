"""Tests of deltaloom; they mirror the code. Those that need a server live in `integration`."""
