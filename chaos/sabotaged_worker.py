"""A worker with one of its safeguards taken out, to show that the bench would notice.

`python -m chaos.sabotaged_worker finish-guard` writes a text although another worker has just written it;
`… acknowledgement` acknowledges a batch first and stores its effects afterwards, in two calls. Nothing of
this is in the service: its scripts and its storage are changed from here, before it starts.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
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


_LAST_BATCH = 10


def _change(script: str, safeguard: str, instead: str) -> None:
    text = scripts.source(script)
    if text.count(safeguard) != 1:
        raise SystemExit(f"{script}.lua has changed: {safeguard!r} is there {text.count(safeguard)} times")
    changed = text.replace(safeguard, instead)
    before = scripts.source
    scripts.source = lambda name: changed if name == script else before(name)


def finish_guard() -> None:
    """Take out the checks that a part is not finished yet, that its log is there, that its item is not."""
    _change("settle", "if redis.call('HGET', state, part) == 'done' then", "if false then")
    _change("settle", "if redis.call('STRLEN', text.log) ~= text.log_bytes then return false end", "")
    _change("settle", "if text.message and not is_shown(text) then", "if text.message then")


def acknowledgement() -> None:
    """Acknowledge before, in a call of its own; the script takes every entry for its own.

    A process crashes between the two steps of its tenth batch: only then is something lost.
    """
    _change("commit", "if found == #ids then return nil end", "do return nil end")
    commit = RedisStorage.commit
    batches = itertools.count(1)

    async def in_two_steps(self: Any, batch: Commit, history: str = "", *, whole: bool = False) -> Committed:
        with unavailable_if_away():
            await self._client.xack(self._keys.names.deltas, GROUP, *batch.entries)
        if next(batches) == _LAST_BATCH:
            os.kill(os.getpid(), signal.SIGKILL)
        return await commit(self, batch, history, whole=whole)

    RedisStorage.commit = in_two_steps  # type: ignore[assignment,method-assign]


SABOTAGES = {"finish-guard": finish_guard, "acknowledgement": acknowledgement}


def main(name: str) -> None:
    """Run a worker without this safeguard."""
    SABOTAGES[name]()
    work(Settings.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
