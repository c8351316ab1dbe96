"""The error of the bench."""

from __future__ import annotations


class BenchError(RuntimeError):
    """An error of the bench itself, without a result about the competitors."""
