"""What is wrong with a destination before anything is sent."""

from __future__ import annotations


class DestinationError(ValueError):
    """The operator's table names what is not there or cannot be used: one line, with no secret in it."""
