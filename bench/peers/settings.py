"""What every peer is told: the server and the names, by the same variables as the worker."""

from __future__ import annotations

import os

from deltaloom.streams import GROUP, StreamNames

__all__ = ["CONSUMER", "COUNT", "GROUP", "NAMES", "URL", "state_key"]

URL = os.environ.get("DELTALOOM_REDIS_URL", "redis://localhost:6379")
NAMES = StreamNames(os.environ.get("DELTALOOM_PREFIX", "deltaloom"))
CONSUMER = f"peer-{os.getpid()}"
COUNT = 500
"""Entries read at once."""


def state_key(response_id: str, kind: str, output_index: int, content_index: int) -> str:
    """Where a peer keeps what it has of a text."""
    return NAMES.name(f"text:{response_id}:{kind}:{output_index}:{content_index}")
