"""Tests with Node: the AsyncAPI document, types for TypeScript, a producer and a subscriber."""
