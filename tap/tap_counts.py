"""Count what a forwarder passes on. Its books add up: bytes read are bytes passed on, or undelivered."""

from __future__ import annotations

from collections import Counter


class TapCounts:
    """Counters of one process."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests by upstream (empty if there is none) and outcome."""
        self.from_clients = 0
        """Bytes of requests' bodies that were read, and passed on."""
        self.from_upstreams = 0
        """Bytes of answers' bodies that were read."""
        self.to_clients = 0
        """Bytes of answers' bodies that were passed on."""
        self.undelivered = 0
        """Bytes of answers' bodies that were read when the client had left."""
        self.copied = 0
        """Bytes of answers' bodies that were handed to the copy."""
        self.not_copied: Counter[str] = Counter()
        """Answers that were not copied, by reason: no stream of a known dialect, or an unknown encoding."""
        self.connections_refused = 0
        """Connections that were closed because there were too many."""
        self.ingested = 0
        """Bytes that the ingest took."""
