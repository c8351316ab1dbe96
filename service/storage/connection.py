"""Clients of the server: one for the scripts, and a patient one for FastStream to read with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.asyncio import Redis

from service.ports import StorageUnavailableError
from service.storage.availability import unavailable_if_away

if TYPE_CHECKING:
    from service.patience import Patience
    from service.storage.group import ConsumerGroup


class PatientRedis(Redis):
    """A client that does not fail while the server is away, but waits; and makes a lost group again.

    FastStream would log a traceback for every attempt, and stop for good where the group is gone.
    """

    patience: Patience
    group: ConsumerGroup

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command when the server can."""
        return await self.patience.until_done(self._attempt, args, options)

    async def _attempt(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            with unavailable_if_away():
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except exceptions.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        await self.group.ensure()
        raise StorageUnavailableError("NOGROUP", "the consumer group was gone, and is made again")


def patient_client(url: str, group: ConsumerGroup, patience: Patience) -> PatientRedis:
    """A client for FastStream."""
    client: PatientRedis = PatientRedis.from_url(url)  # type: ignore[assignment]  # it is of the class asked
    client.patience, client.group = patience, group
    return client
