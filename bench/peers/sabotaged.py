"""The hand-written loop with a fault: it loses a delta of each response, which the bench must detect."""

from __future__ import annotations

import uvloop
from typing_extensions import override

from bench.peers.events import Delta, Done, Other
from bench.peers.hand_written import Batch, run

_LOST = 6
"""Sequence number of the lost delta, the third one of the first text."""


class LossyBatch(Batch):
    """A batch that drops one delta of each response."""

    @override
    def add(self, response_id: str, event: Delta | Done | Other) -> None:
        if not (isinstance(event, Delta) and event.sequence_number == _LOST):
            super().add(response_id, event)


if __name__ == "__main__":
    uvloop.run(run(LossyBatch))
