"""A client for FastStream that waits while the server is away, and makes a group that is gone again.

With its own FastStream would log a traceback for every attempt, and stop for good where the group is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis import exceptions
from redis.asyncio import Redis

from service import logs
from service.ports import StorageUnavailableError
from service.storage.availability import unavailable_if_away
from service.storage.cluster import Cluster
from service.storage.sentinel import Master

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.patience import Patience
    from service.storage.group import ConsumerGroup


class Input(NamedTuple):
    """A stream that is read."""

    group: ConsumerGroup
    patience: Patience


class Patient:
    """What every client for FastStream has, whatever it is a client of."""

    inputs: Mapping[str, Input]
    """By the names of their streams."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command when the server can."""
        stream = next((arg for arg in args if arg in self.inputs), None)
        if stream is None:  # PING: any of the servers will do
            anything = next(iter(self.inputs.values()))
            return await anything.patience.until_done(self._attempt, args, options)
        with logs.bound(stream=stream):
            return await self.inputs[stream].patience.until_done(self._attempt, args, options, stream)

    async def _attempt(
        self, args: tuple[Any, ...], options: dict[str, Any], stream: str | None = None
    ) -> Any:
        try:
            with unavailable_if_away():
                return await super().execute_command(*args, **options)  # type: ignore[misc]  # the client's
        except exceptions.ResponseError as error:
            if stream is None or not str(error).startswith("NOGROUP"):
                raise
        await self.inputs[stream].group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was gone, and is made again")


class PatientRedis(Patient, Redis):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of one server."""


class PatientMaster(Patient, Master):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of the master that sentinels know."""


class PatientCluster(Patient, Cluster):  # type: ignore[misc]  # redis-py's own bases disagree
    """Of a cluster."""
