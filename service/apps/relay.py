"""Joins `alerts.toml`, destinations, Redis and FastStream into a relay: alerts that reach people.

Each destination is served by a task of its own and knows nothing of the others. Of several relays one serves
a destination at a time, and the others stand by: whoever holds its lease reads its group and sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from service import logs
from service.alerts.deciding.findings import ConfigError
from service.alerts.deciding.policy import load
from service.alerts.delivery import Notification
from service.alerts.destinations.errors import DestinationError
from service.alerts.destinations.kinds import made
from service.alerts.sending.intake import Intake
from service.alerts.sending.lease import Lease
from service.alerts.sending.relay import Relay
from service.bus.alerts import reading
from service.cancelling import cancelled
from service.patience import Patience
from service.ports.storage import SetUpWronglyError, StorageUnavailableError
from service.storage.client.connection import client_of, patient_client_of
from service.storage.client.reading_client import Input
from service.storage.outbox import DestinationGroup, RedisLease, RedisOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.policy import Policy
    from service.alerts.delivery import Destination
    from service.alerts.destinations.options import CommonOptions
    from service.settings import Settings

_ASK_AGAIN_AFTER: Final = 1.0
"""Seconds: for a lease that another one holds, and for what nobody tells."""
_ENDS_WITHIN: Final = 2.0
"""Seconds in which a task that was cancelled gives back its connections."""


@asynccontextmanager
async def relaying(settings: Settings, file: Path, environment: Mapping[str, str]) -> AsyncIterator[Relays]:
    """Send alerts within the block, from `start` on.

    Args:
        settings: where the server is.
        file: `alerts.toml`.
        environment: where the variables that it names are looked up.
    """
    relays = Relays(settings, file, environment)
    try:
        yield relays
    finally:
        await relays.end(settings.shutdown_timeout / 2)


class Relays:
    """A relay for each destination of a file.

    Args:
        settings: where the server is.
        file: `alerts.toml`.
        environment: where the variables that it names are looked up.
    """

    def __init__(self, settings: Settings, file: Path, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._file = file
        self._environment = environment
        self._client = client_of(settings.address)
        self._owner = f"{settings.consumer} {uuid.uuid4().hex[:6]}"
        self._serving: dict[str, _Service] = {}
        self._reloads: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def _read(self) -> list[_Service]:
        """What the file says now, ready to start.

        Raises:
            ConfigError: the file, or a destination of it, cannot be used.
        """
        loaded = load(self._file, self._environment)
        services, wrong = [], []
        for name, options in loaded.destinations.items():
            try:
                destination = made(name, options, self._environment)
            except DestinationError as error:
                wrong.append(loaded.places.finding(("destinations", name), str(error)))
                continue
            services.append(
                _Service(destination, options, loaded.policy, self._settings, self._client, self._owner)
            )
        if wrong:
            raise ConfigError(str(self._file), wrong)
        return services

    def start(self) -> None:
        """Begin.

        Raises:
            ConfigError: the file, or a destination of it, cannot be used.
        """
        for service in self._read():
            self._start(service)
        logs.logger().info("relay started", file=str(self._file), destinations=sorted(self._serving))

    def reload(self) -> None:
        """Read the file again, soon. A file that cannot be used changes nothing, and it is said why."""
        task = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        async with self._turn:
            try:
                services = self._read()
            except ConfigError as error:
                for line in str(error).splitlines():
                    logs.logger().error("alerts file not reloaded, the former one stays", error=line)
                return
            new = {service.name: service for service in services}
            names = new.keys() | self._serving.keys()
            await asyncio.gather(*(self._replace(name, new.get(name)) for name in names))
            logs.logger().info("alerts file reloaded", file=str(self._file), destinations=sorted(new))

    async def _replace(self, name: str, new: _Service | None) -> None:
        """One destination's service by another one, which begins when the answers to the former are there."""
        if name in self._serving:
            await self._serving[name].stop()
            del self._serving[name]
        if new is not None:
            self._start(new)

    def _start(self, service: _Service) -> None:
        self._serving[service.name] = service
        service.start()

    async def end(self, timeout: float) -> None:  # noqa: ASYNC109 - what is under way then is left to the next one
        """Begin nothing more; wait a while for the answers to what is under way."""
        for task in self._reloads:
            task.cancel()
        ending = [asyncio.create_task(service.stop()) for service in self._serving.values()]
        if ending:
            _, late = await asyncio.wait(ending, timeout=timeout)
            if late:
                for service in self._serving.values():
                    service.abandon()
                _, late = await asyncio.wait(ending, timeout=_ASK_AGAIN_AFTER)
            if late:
                await asyncio.gather(*(service.kill() for service in self._serving.values()))
                await asyncio.wait(ending)
        await self._client.aclose()
        logs.logger().info("relay stopped")


class _Service:
    """Serves one destination, whenever this process holds its lease."""

    def __init__(
        self,
        destination: Destination,
        options: CommonOptions,
        policy: Policy,
        settings: Settings,
        client: Redis,
        owner: str,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._options = options
        self._policy = policy
        self._settings = settings
        self._patience = Patience()
        self._outbox = RedisOutbox(client, settings.names, self.name)
        self._lease = Lease(RedisLease(client, settings.names, self.name, owner), settings.lease_time)
        streams = [names.alerts for names in settings.names.all]
        self._groups = {stream: DestinationGroup(client, stream, self.name) for stream in streams}
        self._relay: Relay | None = None
        self._stands_by = False
        self._wrong: str | None = None
        """How the server is set up wrongly, once that was logged."""
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        with logs.bound(destination=self.name):
            self._task = asyncio.create_task(self._serve(), name=f"relay to {self.name}")

    async def stop(self) -> None:
        """Begin nothing more; come back when what is under way has ended."""
        self._stopped.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Wait no longer for what is under way."""
        if self._relay is not None:
            self._relay.abandon()

    async def kill(self) -> None:
        """Wait for nothing any more."""
        if self._task is not None:
            await cancelled(self._task, again_after=_ENDS_WITHIN)

    async def _serve(self) -> None:
        """Have the lease, or ask for it again and again."""
        stopped = asyncio.create_task(self._stopped.wait())
        preparing = asyncio.create_task(self._prepare())
        try:
            await asyncio.wait({preparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            _tell_of_failure(preparing)
            while not stopped.done():
                try:
                    await self._serve_if_it_can(stopped)
                except SetUpWronglyError as error:
                    self._tell(error)
                except StorageUnavailableError as error:
                    logs.logger().debug("put off", error=str(error))
                except Exception:  # noqa: BLE001 - what was in hand is still owed, and taken up again
                    logs.logger().exception("relay failed, beginning again")
                await asyncio.wait({stopped}, timeout=_ASK_AGAIN_AFTER)
        finally:
            await cancelled(preparing, stopped, again_after=_ENDS_WITHIN)
            await self._destination.aclose()

    def _tell(self, error: SetUpWronglyError) -> None:
        """Log what somebody has to mend, once."""
        if self._wrong != str(error):
            self._wrong = str(error)
            logs.logger().error(
                "redis is set up wrongly, waiting for somebody", state=error.state, error=str(error)
            )

    async def _prepare(self) -> None:
        """Make the groups, so that a destination which is new begins where it should."""
        for group in self._groups.values():
            await self._patience.until_done(group.ensure, self._options.begin)

    async def _serve_if_it_can(self, stopped: asyncio.Task[bool]) -> None:
        if await self._lease.take():
            logs.logger().info("relay sends")
            self._stands_by = False
            await self._send_while_held(stopped)
        elif not self._stands_by:
            logs.logger().info("relay stands by")
            self._stands_by = True

    async def _send_while_held(self, stopped: asyncio.Task[bool]) -> None:
        """Send until told to stop, or until the lease is lost; then let go of it."""
        self._relay = relay = Relay(
            self._destination, self._options, self._decide, self._outbox, self._lease, self._patience
        )
        keeping = asyncio.create_task(self._lease.keep())
        sending = asyncio.create_task(relay.run())
        receiving = asyncio.create_task(self._receive(relay))
        try:
            everything = {stopped, keeping, sending, receiving}
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            _tell_of_failure(keeping, sending, receiving)
            if not (stopped.done() or self._lease.held):
                logs.logger().warning("lease lost, another relay may send")
            relay.end_soon()
            await cancelled(receiving, again_after=_ENDS_WITHIN)
            await relay.end()
        finally:
            self._relay = None
            await cancelled(receiving, sending, keeping, again_after=_ENDS_WITHIN)
            with contextlib.suppress(StorageUnavailableError):
                await self._lease.release()

    async def _receive(self, relay: Relay) -> None:
        """Hand it what is owed, and what comes."""
        await relay.resume()
        intakes = {
            stream: Intake(stream, self._outbox, self._patience, relay.take) for stream in self._groups
        }
        inputs = {stream: Input(group, self._patience) for stream, group in self._groups.items()}
        client = patient_client_of(self._settings.address, inputs)
        takers = {stream: intake.take for stream, intake in intakes.items()}
        async with reading(self._settings, client, self.name, takers):
            # Each by itself: of a cluster, a partition may be away while the others go on.
            await asyncio.gather(self._watch(relay), *map(self._look_after, intakes.values()))

    async def _look_after(self, intake: Intake) -> None:
        """Take what is owed already, then what was given out and did not arrive."""
        await intake.inherit()
        while True:
            await asyncio.sleep(_ASK_AGAIN_AFTER)
            await intake.take_strays()

    async def _watch(self, relay: Relay) -> None:
        """Notice what an operator does."""
        while True:
            await asyncio.sleep(_ASK_AGAIN_AFTER)
            try:
                await relay.check_whether_gone()
            except SetUpWronglyError as error:
                self._tell(error)
            except StorageUnavailableError:
                pass  # the others tell

    def _decide(self, alert: ModerationAlert, now: datetime) -> Notification | None:
        decision = self._policy.decide_for(self.name, alert, now)
        return decision if isinstance(decision, Notification) else None


def _tell_of_failure(*tasks: asyncio.Task[None]) -> None:
    """Log what ended with an error: a mistake in this program, or a server that cannot do what it should."""
    for task in tasks:
        if task.done() and not task.cancelled():
            try:
                task.result()
            except Exception:  # noqa: BLE001 - what was in hand is still owed, and taken up again
                logs.logger().exception("relay failed, beginning again")
