"""Target of processes of multiprocessing, which must be importable."""

from __future__ import annotations

import deltaloom
from tests.client.publishing.streams_of_events import delta


def publish_in_child(url: str) -> None:
    """Publish an event that lingers when the process ends."""
    publisher = deltaloom.Publisher(url, linger=3600)
    publisher.stream("child").offer([delta("output_text", "x", 0)])
