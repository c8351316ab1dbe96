"""A worker without one of its safeguards, to show that the bench would detect that.

`python -m chaos.sabotaged_worker finish-guard` writes a text although another worker has just written it; `…
acknowledgement` acknowledges a batch first and stores its effects afterwards, in two calls. The service has
no code for this: this program changes its scripts and its storage before it starts.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from deltaloom import GROUP
from service.cli.worker import work
from service.settings import Settings
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from service.ports.commit import Commit
    from service.ports.storage import Committed


_CRASHES_AT = 10
"""Number of the batch at which a process without `acknowledgement` crashes."""


def _change(script: str, safeguard: str, instead: str) -> None:
    text = scripts.source(script)
    if text.count(safeguard) != 1:
        raise SystemExit(f"{script}.lua has changed: {safeguard!r} is there {text.count(safeguard)} times")
    changed = text.replace(safeguard, instead)
    before = scripts.source
    scripts.source = cache(lambda name: changed if name == script else before(name))


def finish_guard() -> None:
    """Remove the checks that a part is unfinished, its log unchanged and its item unwritten."""
    _change("settle", "if text.is_done or is_finished[text.log] then", "if false then")
    _change("settle", "if text.log_bytes_now ~= text.log_bytes then return false end", "")
    _change("settle", "if text.message and not text.was_in_item then", "if text.message then")


def acknowledgement() -> None:
    """Acknowledge a batch in a separate call before its commit, which then treats all entries as new.

    Each process crashes between the two steps of its tenth batch, so that the batch is lost.
    """
    _change("commit", "if found == #ids then return nil end", "do return nil end")
    commit = RedisStorage.commit
    batches = itertools.count(1)

    async def in_two_steps(
        self: Any, batch: Commit, replication_id: str = "", *, whole: bool = False
    ) -> Committed:
        with unavailable_if_away():
            await self._client.xack(self._keys.names.deltas, GROUP, *batch.entries)
        if next(batches) == _CRASHES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return await commit(self, batch, replication_id, whole=whole)

    RedisStorage.commit = in_two_steps  # type: ignore[assignment,method-assign]


SABOTAGES = {"finish-guard": finish_guard, "acknowledgement": acknowledgement}


def main(name: str) -> None:
    """Run a worker without this safeguard."""
    SABOTAGES[name]()
    work(Settings.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
