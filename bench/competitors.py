"""Who is compared: the table of competitors."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Competitor:
    """A worker as it is started: a process of its own that reads the input in the group."""

    name: str
    says: str
    module: str
    arguments: tuple[str, ...] = ()
    rebuilds: bool = True
    """Whether it writes texts and alerts, which then are checked."""
    alerts: int = 1
    """Alerts for a refusal: opened, or opened and finished."""
    share: float = 1.0
    """Of how much of the input it is given: one that is slow gets less, so that all take seconds."""

    @property
    def command(self) -> tuple[str, ...]:
        """How it is started."""
        return (sys.executable, "-m", self.module, *self.arguments)


OURS = Competitor("ours", "`deltaloom worker`, with every guarantee", "service", ("worker",), alerts=2)
BARE = Competitor("bare", "XREADGROUP + XACK, nothing else", "bench.peers.bare", rebuilds=False)
HAND_WRITTEN = Competitor(
    "hand-written",
    "redis-py loop, pydantic, pipelines for whole batches",
    "bench.peers.hand_written",
    share=0.3,
)
FASTSTREAM_BATCH = Competitor(
    "faststream-batch",
    "FastStream, a batch as list[…] by pydantic",
    "bench.peers.faststream_batch",
    share=0.3,
)
FIRST_ATTEMPT = Competitor(
    "first-attempt", "FastStream, a handler for each message", "bench.peers.first_attempt", share=0.03
)
BARE_ECHO = Competitor(
    "bare-echo", "reads an entry and XADDs one, nothing else", "bench.peers.bare_echo", rebuilds=False
)
SABOTAGED = Competitor(
    "sabotaged", "loses a delta now and then: the bench must notice", "bench.peers.sabotaged"
)

ALL = (BARE, OURS, HAND_WRITTEN, FASTSTREAM_BATCH, FIRST_ATTEMPT, BARE_ECHO)
