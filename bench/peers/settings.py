"""Settings of the peers: server and names, from the same variables as the worker's."""

from __future__ import annotations

import os

from deltaloom.streams import GROUP, StreamNames

__all__ = ["CONSUMER", "COUNT", "GROUP", "NAMES", "URL", "state_key"]

URL = os.environ.get("DELTALOOM_REDIS_URL", "redis://localhost:6379")
NAMES = StreamNames(os.environ.get("DELTALOOM_PREFIX", "deltaloom"))
CONSUMER = f"peer-{os.getpid()}"
COUNT = 500
"""Number of entries to read at once."""


def state_key(response_id: str, kind: str, output_index: int, content_index: int) -> str:
    """Return the key of a peer's state of a text."""
    return NAMES.name(f"text:{response_id}:{kind}:{output_index}:{content_index}")
