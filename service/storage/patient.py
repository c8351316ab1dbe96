"""A client for FastStream that waits while the server is away, and makes a group that is gone again.

With its own FastStream would log a traceback for every attempt, and stop for good where the group is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from redis import exceptions
from redis.asyncio import Redis

from service import logs
from service.ports import StorageUnavailableError
from service.storage.availability import unavailable_if_away
from service.storage.cluster import Cluster
from service.storage.sentinel import Master

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.patience import Patience
    from service.ports import RawEntry


BATCH_BYTES = 2 * 1024 * 1024
"""Of large entries (arrays of events) a batch has fewer, so that it takes no longer than one of small."""

_SAMPLE = 16
"""Entries of a batch that are looked at, to tell how large they are."""


class Group(Protocol):
    """A consumer group."""

    async def ensure(self) -> None:
        """Make it, if it is not there."""
        ...


class Input(NamedTuple):
    """A stream that is read."""

    group: Group
    patience: Patience


class Patient:
    """What every client for FastStream has, whatever it is a client of."""

    inputs: Mapping[str, Input]
    """By the names of their streams."""
    entry_bytes: dict[str, int]
    """How large the entries last read of a stream were; none at first."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Read when the server can.

        FastStream also pings, and makes the group, at the stream's end. Neither is done: no reader waits for
        another one's server, and the group is there, and begins where it should.
        """
        if args[0] != "XREADGROUP":
            return True
        stream = next(arg for arg in args if arg in self.inputs)
        args = _with_count(args, self.entry_bytes.get(stream, 1))
        with logs.bound(stream=stream):
            reply = await self.inputs[stream].patience.until_done(self._attempt, stream, args, options)
        if reply:
            ((_, ((_, entries),)),) = reply
            self.entry_bytes[stream] = _size(entries)
        return reply

    async def _attempt(self, stream: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            with unavailable_if_away():
                return await super().execute_command(*args, **options)  # type: ignore[misc]  # the client's
        except exceptions.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        await self.inputs[stream].group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was gone, and is made again")


def _with_count(args: tuple[Any, ...], entry_bytes: int) -> tuple[Any, ...]:
    """The command, asking for no more entries than are likely to have BATCH_BYTES together."""
    at = args.index(b"COUNT") + 1
    return (*args[:at], max(1, min(int(args[at]), BATCH_BYTES // entry_bytes)), *args[at + 1 :])


def _size(entries: Sequence[RawEntry]) -> int:
    """Bytes of an entry, about: the mean of some that are spread over the batch."""
    some = entries[:: max(1, len(entries) // _SAMPLE)]
    return 1 + sum(len(value) for _, fields in some for value in fields) // len(some)


class PatientRedis(Patient, Redis):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of one server."""


class PatientMaster(Patient, Master):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of the master that sentinels know."""


class PatientCluster(Patient, Cluster):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of a cluster."""
