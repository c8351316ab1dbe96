"""The hand-written loop with a fault: it loses a delta of each response, which the bench must detect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop
from typing_extensions import override

from bench.peers.hand_written import Batch, run

if TYPE_CHECKING:
    from bench.peers.events import Delta, Done, Other

_LOST = 6
"""Sequence number of the lost event, which is a delta in nearly every response."""


class LossyBatch(Batch):
    """A batch that drops one delta of each response."""

    @override
    def add(self, response_id: str, event: Delta | Done | Other) -> None:
        if getattr(event, "sequence_number", None) != _LOST:
            super().add(response_id, event)


if __name__ == "__main__":
    uvloop.run(run(LossyBatch))
