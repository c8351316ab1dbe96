"""The table of competitors."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Competitor:
    """A worker that runs in a process of its own and reads the input in the group."""

    name: str
    says: str
    module: str
    arguments: tuple[str, ...] = ()
    rebuilds: bool = True
    """True if it writes texts and alerts, which are then checked."""
    alerts: int = 1
    """Number of alerts per refusal: 1 (opened) or 2 (opened and finished)."""
    share: float = 1.0
    """Share of the input that it gets, smaller for slow ones, so that all runs take seconds."""

    @property
    def command(self) -> tuple[str, ...]:
        """Return the command that starts it."""
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
NOBODY = Competitor("publisher alone", "nobody reads what is published", "", rebuilds=False)
"""The place of a competitor in a run without one."""

ALL = (BARE, OURS, HAND_WRITTEN, FASTSTREAM_BATCH, FIRST_ATTEMPT, BARE_ECHO)
