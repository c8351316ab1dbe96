"""Errors in a destination's configuration that are found before anything is sent."""

from __future__ import annotations


class DestinationError(ValueError):
    """The operator's table refers to something missing or unusable; the one-line message has no secrets."""
