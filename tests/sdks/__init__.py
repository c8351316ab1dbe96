"""Tests against real SDKs, which have a virtual environment and a lock of their own."""
