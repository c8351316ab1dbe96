"""Relay processes for tests: their configuration, and alerts for them to deliver."""

from __future__ import annotations

import json
import os
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deltaloom import Delivery, ModerationAlert, StreamNames, UndeliveredAlert
from deltaloom.messages import PLAIN_FIELDS
from service.alerts.sending.delivery_record import AcceptedAlert, delivery_of
from service.ports.outbox import EndedDelivery
from tests import fork_server
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.webhook_receiver import SECRET
from tests.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis

    from service.ports.outbox import EntryRef

SECRETS = {"RECEIVER_SECRET": SECRET}


def destination(name: str, url: str, **options: object) -> str:
    """Return the TOML table of a webhook destination on this machine."""
    given: dict[str, object] = {
        "type": "webhook",
        "url": url,
        "secret_env": "RECEIVER_SECRET",
        "allow_addresses": ["127.0.0.0/8"],
        "begin": "all",
        **options,
    }
    lines = "\n".join(f"{key} = {_toml(value)}" for key, value in given.items())
    return f"[destinations.{name}]\n{lines}\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


async def raise_alert(
    redis: Redis, prefix: str, phase: str, response: str, name: str | None = None, **changed: Any
) -> str:
    """Add an alert to the stream, as a worker does; return its id: `name`, or else like `opened_resp_1`."""
    fields: dict[str, Any] = {
        "type": f"deltaloom.refusal.{phase}",
        "id": name or f"{phase}_{response}",
        "severity": "warning",
        "text": "No.",
        "kind": "refusal",
        "response_id": response,
        "output_index": 0,
        "content_index": 0,
        "model": "gpt-x",
        "raised_at": "2026-05-04T12:00:00Z",
        **changed,
    }
    alert = ModerationAlert.model_validate(fields)
    plain = {field: str(fields[field]) for field in PLAIN_FIELDS if field in fields}
    await add(redis, StreamNames(prefix).alerts, {"__data__": alert.model_dump_json(), **plain})
    return alert.id


async def pending_alerts(redis: Redis, prefix: str, name: str) -> int:
    """Return the number of unread or unacknowledged alerts of a destination; -1 if it has no group."""
    stream = StreamNames(prefix).alerts
    for group in await redis.xinfo_groups(stream) if await redis.exists(stream) else ():
        if group["name"] == f"relay:{name}".encode():
            return int(group["pending"]) + int(group["lag"] or 0)
    return -1


async def wait_until_served(redis: Redis, prefix: str, name: str) -> None:
    """Wait until a destination has its consumer group."""

    async def served() -> bool:
        return await pending_alerts(redis, prefix, name) >= 0

    await wait_until(served, message=f"{name} has its group")


async def wait_until_settled(redis: Redis, prefix: str, name: str, timeout: float = 60) -> None:
    """Wait until no alert is pending for a destination."""

    async def settled() -> bool:
        return await pending_alerts(redis, prefix, name) == 0

    await wait_until(settled, timeout, message=f"{name} has nothing pending")


async def undelivered(redis: Redis, prefix: str) -> list[UndeliveredAlert]:
    """Return the undelivered alerts in order."""
    written = await entries(redis, StreamNames(prefix).undelivered)
    return [
        UndeliveredAlert.model_validate({name.decode(): value.decode() for name, value in fields.items()})
        for _, fields in written
    ]


async def deliveries(redis: Redis, prefix: str) -> list[Delivery]:
    """Return the deliveries in order."""
    written = await entries(redis, StreamNames(prefix).deliveries)
    return [Delivery.model_validate_json(fields[b"__data__"]) for _, fields in written]


def ended(ref: EntryRef, outcome: str = "delivered", destination: str = "here") -> EndedDelivery:
    """Return an alert's end, as a relay records it."""
    at = datetime(2026, 5, 4, 12, tzinfo=UTC)
    alert = AcceptedAlert(ref, at, alert_id=f"alert {ref.id}")
    return EndedDelivery(ref, delivery_of(alert, destination, outcome, "200 OK", 1, at))


def relay_environment(redis_url: str, prefix: str, **settings: object) -> dict[str, str]:
    """Return the environment of a relay process."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")},
        **SECRETS,
        "REDIS_URL": redis_url,
        "DELTALOOM_PREFIX": prefix,
        "DELTALOOM_LOG_FORMAT": "json",
        "DELTALOOM_LEASE_TIME": "1",
        **{f"DELTALOOM_{name.upper()}": str(value) for name, value in settings.items()},
    }


@asynccontextmanager
async def relay_process(
    file: Path, environment: Mapping[str, str], *command: str
) -> AsyncIterator[WorkerProcess]:
    """Run `deltaloom relay`, or another command, and stop it at the end if it still runs."""
    with TemporaryDirectory() as folder:
        arguments = (*(command or ("relay",)), "--config", str(file))
        relay = _started(arguments, environment, Path(folder, "log"))
        process = relay.process
        try:
            await wait_until(partial(relay.has_logged, "relay started"), 60, message="the relay starts")
            yield relay
            if process.returncode is None:
                assert await relay.stop() == 0, relay.lines()[-10:]
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _started(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> WorkerProcess:
    with log.open("wb") as stderr:
        process = fork_server.start(*arguments, env=environment, stdout=None, stderr=stderr)
    return WorkerProcess(process, log)


def hang_up(relay: WorkerProcess) -> None:
    """Send SIGHUP, so that the relay reads its file again."""
    relay.process.send_signal(signal.SIGHUP)
