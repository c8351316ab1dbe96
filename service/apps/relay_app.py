"""Compose `alerts.toml`, destinations, Redis and FastStream into a relay that delivers alerts.

A task of its own serves each destination, independently of the others. If several relays run, the holder of a
destination's lease reads its consumer group and sends; the others stand by.

The path of an alert: FastStream's reader → `bus/alerts.py` → `Intake.pass_on` → `DestinationRelay.accept` →
`Schedule` → the destination. There are three ways to stop: `stop` begins no more attempts and waits for those
under way, `abandon` cancels them, and `kill` cancels the whole task.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from service import logs
from service.alerts.deciding.findings import ConfigError
from service.alerts.deciding.policy import load
from service.alerts.delivery import Notification
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.registry import create_destination
from service.alerts.sending.destination_relay import DestinationRelay
from service.alerts.sending.intake import ORPHANED_AFTER_MS, Intake
from service.alerts.sending.lease import Lease
from service.bus.alerts import reading
from service.cancelling import cancel, result_within
from service.ports.instruments import RELAY_OFF
from service.ports.spans import NO_SPANS
from service.ports.storage import SetupError, StorageUnavailableError
from service.ports.telemetry import RelayTelemetry
from service.retrying import RetryUntilAvailable
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.reading_client import Input
from service.storage.redis_outbox import DestinationGroup, RedisLease, RedisOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.policy import Policy
    from service.alerts.delivery import Destination
    from service.alerts.destinations.options import CommonOptions
    from service.ports.instruments import RelayInstruments
    from service.ports.spans import Spans
    from service.settings import Settings

_INTERVAL: Final = 1.0
"""Seconds between attempts to acquire a lease, and checks whether an operator has enabled a destination."""
_ORPHANED_INTERVAL: Final = ORPHANED_AFTER_MS / 1000 / 2
"""Seconds between checks of a stream for orphaned alerts."""
_BACKLOG_WITHIN: Final = 2.0
"""Maximum seconds for the backlog of a destination, which a person waits for."""
_MEASURED_EVERY: Final = 5.0
"""Seconds between two measurements of a backlog."""
_ABANDONED_END_WITHIN: Final = 1.0
"""Seconds for abandoned services to end before they are killed."""
_CANCEL_AGAIN_AFTER: Final = 2.0
"""Seconds before a cancelled task that has not ended is cancelled again."""


@asynccontextmanager
async def relaying(
    settings: Settings,
    file: Path,
    environment: Mapping[str, str],
    instruments: RelayInstruments = RELAY_OFF,
    spans: Spans = NO_SPANS,
) -> AsyncIterator[RelayApp]:
    """Provide the relay within the block; it sends alerts once `start` is called.

    Args:
        settings: address of the server, and names and timeouts.
        file: path of `alerts.toml`.
        environment: environment variables in which the file's `_env` names are looked up.
        instruments: count what it delivers.
        spans: report its attempts to deliver.
    """
    app = RelayApp(settings, file, environment, instruments, spans)
    try:
        yield app
    finally:
        await app.end(settings.shutdown_timeout / 2)  # the rest is for services that must be abandoned


class RelayApp:
    """A service for each destination of a file.

    Args:
        settings: address of the server, and names and timeouts.
        file: path of `alerts.toml`.
        environment: environment variables in which the file's `_env` names are looked up.
        instruments: count what it delivers.
        spans: report its attempts to deliver.
    """

    def __init__(
        self,
        settings: Settings,
        file: Path,
        environment: Mapping[str, str],
        instruments: RelayInstruments = RELAY_OFF,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._telemetry = RelayTelemetry(instruments, spans)
        self._settings = settings
        self._file = file
        self._environment = environment
        self._client = client_of(settings.address)
        self._owner = f"{settings.consumer} {uuid.uuid4().hex[:6]}"
        self._serving: dict[str, _DestinationService] = {}
        self._reloads: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._started = False
        """True from `start` to `end`."""

    @property
    def started(self) -> bool:
        """True once a destination has its consumer groups, or the file has no destination."""
        return self._started and (not self._serving or any(each.ready for each in self._serving.values()))

    def not_ready(self) -> list[str]:
        """Return a reason for each thing that keeps this relay from sending; a standby is ready."""
        if not self._started:
            return ["stopping" if self._serving else "starting"]
        return [reason for service in self._serving.values() if (reason := service.not_ready())]

    async def status(self) -> dict[str, Any]:
        """Return the state of this relay for people."""
        services = [*self._serving.values()]
        return {"destinations": await asyncio.gather(*(service.status() for service in services))}

    def _create_services(self) -> list[_DestinationService]:
        """Read the file and return a service for each destination, not yet started.

        Raises:
            ConfigError: the file, or one of its destinations, cannot be used.
        """
        loaded = load(self._file, self._environment)
        services, wrong = [], []
        for name, options in loaded.destinations.items():
            try:
                destination = create_destination(name, options, self._environment)
            except DestinationError as error:
                wrong.append(loaded.locations.finding(("destinations", name), str(error)))
                continue
            services.append(
                _DestinationService(
                    destination,
                    options,
                    loaded.policy,
                    self._settings,
                    self._client,
                    self._owner,
                    self._telemetry,
                )
            )
        if wrong:
            raise ConfigError(str(self._file), wrong)
        return services

    def start(self) -> None:
        """Start serving all destinations of the file.

        Raises:
            ConfigError: the file, or one of its destinations, cannot be used.
        """
        for service in self._create_services():
            self._start_one(service)
        self._started = True
        logs.logger().info("relay started", file=str(self._file), destinations=sorted(self._serving))

    def reload(self) -> None:
        """Reload the file in a task. A file that cannot be used changes nothing; its mistakes are logged."""
        task = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        async with self._lock:
            try:
                services = self._create_services()
            except ConfigError as error:
                for line in str(error).splitlines():
                    logs.logger().error("alerts file invalid, previous one kept", error=line)
                return
            new = {service.name: service for service in services}
            names = new.keys() | self._serving.keys()
            await asyncio.gather(*(self._replace(name, new.get(name)) for name in names))
            logs.logger().info("alerts file reloaded", file=str(self._file), destinations=sorted(new))

    async def _replace(self, name: str, new: _DestinationService | None) -> None:
        """Replace or remove a service; start the new one when the attempts of the old one have ended."""
        if name in self._serving:
            await self._serving[name].stop()
            del self._serving[name]
        if new is not None:
            self._start_one(new)

    def _start_one(self, service: _DestinationService) -> None:
        self._serving[service.name] = service
        service.start()

    async def end(self, timeout: float) -> None:  # noqa: ASYNC109 - more steps follow the timeout
        """Stop all services, waiting up to `timeout` seconds for the answers to attempts under way."""
        self._started = False
        for task in self._reloads:
            task.cancel()
        ending = [asyncio.create_task(service.stop()) for service in self._serving.values()]
        if ending:
            _, late = await asyncio.wait(ending, timeout=timeout)
            if late:
                for service in self._serving.values():
                    service.abandon()
                _, late = await asyncio.wait(ending, timeout=_ABANDONED_END_WITHIN)
            if late:
                await asyncio.gather(*(service.kill() for service in self._serving.values()))
                await asyncio.wait(ending)
        await self._client.aclose()
        logs.logger().info("relay stopped")


class _DestinationService:
    """A service that sends to one destination whenever this process holds its lease."""

    def __init__(
        self,
        destination: Destination,
        options: CommonOptions,
        policy: Policy,
        settings: Settings,
        client: Redis,
        owner: str,
        telemetry: RelayTelemetry,
    ) -> None:
        self._telemetry = telemetry
        self._instruments = telemetry.instruments
        self.name = destination.name
        self._destination = destination
        self._options = options
        self._policy = policy
        self._settings = settings
        self._retrying = RetryUntilAvailable()
        telemetry.instruments.watch(self._retrying)
        self._outbox = RedisOutbox(client, settings.names, self.name)
        self._lease = Lease(RedisLease(client, settings.names, self.name, owner), settings.lease_time)
        streams = [names.alerts for names in settings.names.all]
        self._groups = {stream: DestinationGroup(client, stream, self.name) for stream in streams}
        self._groups_exist = False
        self._relay: DestinationRelay | None = None
        self._stands_by = False
        self._logged_error: str | None = None
        """Text of the misconfiguration error that was logged last."""
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """True once its consumer groups exist."""
        return self._groups_exist

    def not_ready(self) -> str | None:
        """Return the reason why it does not send or stand by; None if it does."""
        if self._logged_error is not None:
            return f"{self.name}: redis misconfigured"
        if self._retrying.waits_for is not None:
            return f"{self.name}: waits for Redis ({self._retrying.waits_for})"
        return None if self._groups_exist else f"{self.name}: its groups are missing"

    async def status(self) -> dict[str, Any]:
        """Return its state for people; the backlog is None if Redis does not answer in time."""
        relay = self._relay
        backlog = None
        with contextlib.suppress(StorageUnavailableError):
            backlog = await result_within(_BACKLOG_WITHIN, self._outbox.backlog())
        return {
            "name": self.name,
            "sends": relay is not None,
            "stands_by": self._stands_by,
            "waits_for_redis": self._retrying.waits_for,
            "paused": relay is not None and relay.paused,
            "backlog": backlog and backlog.alerts,
            "last_answer": relay and relay.last_answer,
        }

    def start(self) -> None:
        """Start the service's task."""
        with logs.bound(destination=self.name):
            self._task = asyncio.create_task(self._serve(), name=f"relay to {self.name}")

    async def stop(self) -> None:
        """Stop beginning attempts, and return when those under way have ended."""
        self._stopped.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Cancel the attempts under way; the service then ends soon."""
        if self._relay is not None:
            self._relay.abandon()

    async def kill(self) -> None:
        """Cancel the service's task."""
        if self._task is not None:
            await cancel(self._task, again_after=_CANCEL_AGAIN_AFTER)

    async def _serve(self) -> None:
        """Send while this process holds the lease, and retry to acquire it otherwise, until stopped."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            while not stopped.done():
                try:
                    if not self._groups_exist:
                        await self._create_groups(stopped)
                    if self._groups_exist:
                        await self._serve_if_leased(stopped)
                except SetupError as error:
                    self._log_misconfiguration(error)
                except StorageUnavailableError as error:
                    logs.logger().debug("relay step skipped, redis unavailable", error=str(error))
                except Exception:  # noqa: BLE001 - its alerts are still pending, and retried
                    logs.logger().exception("relay failed, restarting")
                await asyncio.wait({stopped}, timeout=_INTERVAL)
        finally:
            await cancel(stopped)
            await self._destination.aclose()

    def _log_misconfiguration(self, error: SetupError) -> None:
        """Log a misconfiguration of the server, once, for an operator to correct."""
        if self._logged_error != str(error):
            self._logged_error = str(error)
            logs.logger().error(
                "redis misconfigured, waiting for an operator", state=error.state, error=str(error)
            )

    async def _create_groups(self, stopped: asyncio.Task[bool]) -> None:
        """Create the consumer groups, or return when stopped.

        Do so even while another relay holds the lease, so that a new destination misses no alert from now on.
        """
        creating = asyncio.create_task(self._ensure_groups())
        try:
            await asyncio.wait({creating, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(creating, again_after=_CANCEL_AGAIN_AFTER)
        if not creating.cancelled():
            creating.result()
            self._groups_exist = True

    async def _ensure_groups(self) -> None:
        """Create the groups, and check that this process may record deliveries before it sends any alert."""
        for group in self._groups.values():
            await self._retrying.call(group.ensure, self._options.begin)
        await self._retrying.call(self._outbox.check_rights)

    async def _serve_if_leased(self, stopped: asyncio.Task[bool]) -> None:
        if await self._lease.acquire():
            logs.logger().info("relay active")
            self._stands_by = False
            self._logged_error = None
            await self._send_while_held(stopped)
        elif not self._stands_by:
            logs.logger().info("relay standby")
            self._stands_by = True

    async def _send_while_held(self, stopped: asyncio.Task[bool]) -> None:
        """Send until stopped or the lease is lost; then release the lease."""
        self._relay = relay = DestinationRelay(
            self._destination,
            self._options,
            self._decide,
            self._outbox,
            self._lease,
            self._retrying,
            self._telemetry,
        )
        measuring = asyncio.create_task(self._measure(relay))
        keeping = asyncio.create_task(self._lease.keep())
        sending = asyncio.create_task(relay.run())
        receiving = asyncio.create_task(self._receive(relay))
        try:
            everything = {stopped, keeping, sending, receiving}
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            _log_failures(keeping, sending, receiving)
            if not (stopped.done() or self._lease.held):
                logs.logger().warning("lease lost, another relay may send")
            relay.end_soon()
            await cancel(receiving, again_after=_CANCEL_AGAIN_AFTER)
            await relay.end()
        finally:
            self._relay = None
            await cancel(measuring, again_after=_CANCEL_AGAIN_AFTER)
            self._instruments.left(self.name)
            await cancel(receiving, sending, keeping, again_after=_CANCEL_AGAIN_AFTER)
            with contextlib.suppress(StorageUnavailableError):
                await self._lease.release()

    async def _receive(self, relay: DestinationRelay) -> None:
        """Pass pending and new alerts to the relay."""
        await relay.resume()
        intakes = {
            stream: Intake(stream, self._outbox, self._retrying, relay.accept) for stream in self._groups
        }
        # One read per batch: between two reads of a batch, a relay that has lost the lease without knowing
        # could read entries, and the batch would have a gap.
        inputs = {stream: Input(group, self._retrying, max_reads=1) for stream, group in self._groups.items()}
        client = reading_client_of(self._settings.address, inputs)
        receivers = {stream: intake.pass_on for stream, intake in intakes.items()}
        async with reading(self._settings, client, self.name, receivers):
            # One task per stream: in a cluster, one partition may be unavailable while the others work.
            await asyncio.gather(self._watch(relay), *map(self._run_intake, intakes.values()))

    async def _run_intake(self, intake: Intake) -> None:
        """Pass on pending alerts, then check regularly for orphaned ones."""
        await intake.pass_on_pending()
        while True:
            await asyncio.sleep(_ORPHANED_INTERVAL)
            await intake.pass_on_orphaned()

    async def _watch(self, relay: DestinationRelay) -> None:
        """Check regularly whether an operator has enabled the destination again."""
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await relay.check_enabled()
            except SetupError as error:
                self._log_misconfiguration(error)
            except StorageUnavailableError:
                pass  # other tasks log this

    async def _measure(self, relay: DestinationRelay) -> None:
        """Measure the backlog regularly, if anybody wants to know it."""
        while self._instruments.on:
            with contextlib.suppress(StorageUnavailableError):  # other tasks log this
                backlog = await self._outbox.backlog()
                self._instruments.measured(self.name, backlog, paused=relay.paused)
            await asyncio.sleep(_MEASURED_EVERY)

    def _decide(self, alert: ModerationAlert, now: datetime) -> Notification | None:
        decision = self._policy.decide_for(self.name, alert, now)
        return decision if isinstance(decision, Notification) else None


def _log_failures(*tasks: asyncio.Task[None]) -> None:
    """Log the exceptions of tasks that failed: a bug, or a misconfigured server."""
    for task in tasks:
        if task.done() and not task.cancelled():
            try:
                task.result()
            except Exception:  # noqa: BLE001 - its alerts are still pending, and retried
                logs.logger().exception("relay failed, restarting")
