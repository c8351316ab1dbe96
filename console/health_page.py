"""The page of health: workers, partitions, dead letters and destinations."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from redis import exceptions

from console.alert_rows import delivery_in, delivery_json
from console.letter_rows import letter_json
from console.newest_entries import newest_entries
from console.stream_places import other_keys
from deltaloom.streams import GROUP
from service.cli.all_letters import AllLetters
from service.cli.relay_findings import relays
from service.cli.worker_findings import workers
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.server import ServerFinding
from service.storage.group_figures import RedisFigures
from service.storage.redis_outbox import RedisOutbox, backlogs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis

    from console.console_settings import ConsoleSettings
    from console.site import PageRequest
    from console.text_access import TextAccess
    from console.text_policy import TextPolicy
    from deltaloom.messages import Delivery
    from deltaloom.streams import StreamNames
    from service.storage.letter_store import StoredLetter

MAX_PARTITIONS: Final = 64
"""Partitions that are shown; the findings are about all."""
_LETTERS: Final = 50
_DELIVERIES: Final = 500
_SILENT_MS: Final = 30_000
"""Milliseconds without a sign of life after which a worker is shown as silent."""
_AT_ONCE: Final = 4
_LEVELS: Final = {"ok": "ok", "warn": "warning", "fail": "error"}


class HealthPage:
    """The answers of `api/health`.

    Args:
        client: client of the server.
        settings: the settings.
        texts: decides who sees the words of dead letters.
        types: types of the destinations in the alerts file, by name.
    """

    def __init__(
        self, client: Redis, settings: ConsoleSettings, texts: TextAccess, types: Mapping[str, str]
    ) -> None:
        self._client = client
        self._settings = settings
        self._partitions = settings.names.all
        self._texts = texts
        self._types = types

    async def answer(self, page: PageRequest) -> dict[str, Any]:
        """Return the state of the deployment."""
        policy = await self._texts.policy(page, "dead letters")
        shown = self._partitions[:MAX_PARTITIONS]
        limit = asyncio.Semaphore(_AT_ONCE)
        rows = await asyncio.gather(*(self._partition(names, limit) for names in shown))
        findings = [
            *await workers(self._client, self._settings.names),
            *await relays(self._client, self._settings.names),
            *await self._odd_keys(),
        ]
        unknown = ["When workers started and which version they are is at their own /statusz."]
        if len(shown) < len(self._partitions):
            unknown.append(
                f"Only the first {MAX_PARTITIONS} of {len(self._partitions):,} partitions are shown."
            )
        return {
            "at": round(time.time() * 1000),
            "findings": [
                {"level": _LEVELS.get(each.state, "warning"), "text": f"{each.what}: {each.says}"}
                for each in findings
            ],
            "workers": await self._workers(shown),
            "partitions": rows,
            "dead_letters": await self._letters(policy),
            "destinations": await self._destinations(),
            "unknown": unknown,
        }

    async def _partition(self, names: StreamNames, limit: asyncio.Semaphore) -> dict[str, Any]:
        in_cluster = self._settings.address.mode == "cluster"
        async with limit:
            row: dict[str, Any] = {"name": names.deltas}
            try:
                figures = await RedisFigures(self._client, [names], in_cluster=in_cluster).ask()
                with unavailable_if_away():
                    row["length"] = await self._client.xlen(names.deltas)
                    row["dead_letters"] = await self._client.xlen(names.dead_letters)
                    row["undelivered"] = await self._client.xlen(names.undelivered)
            except SetupError as error:
                return {**row, "error": str(error)}
            except StorageUnavailableError as error:
                if not in_cluster:
                    raise
                return {**row, "error": f"its server does not answer: {error.state}"}
        oldest = round(figures.oldest_seconds * 1000) if figures.lag or figures.pending else None
        return {
            **row,
            "waiting": figures.lag,
            "pending": figures.pending,
            "oldest_ms": oldest,
            "open": figures.open,
            "settling": figures.waiting,
        }

    async def _odd_keys(self) -> list[ServerFinding]:
        """Return a finding for keys that are no streams: nothing of them is shown."""
        keys = [
            stream
            for names in self._partitions
            for stream in (
                names.deltas,
                names.assembled,
                names.alerts,
                names.deliveries,
                names.undelivered,
                names.dead_letters,
            )
        ]
        odd = await other_keys(self._client, keys)
        if not odd:
            return []
        more = f" and {len(odd) - 1} more" if odd[1:] else ""
        says = f"{odd[0]}{more} should be streams, and are not: nothing of them is shown; move or delete them"
        return [ServerFinding("keys", "fail", says)]

    async def _workers(self, partitions: Sequence[StreamNames]) -> list[dict[str, Any]]:
        """Return the consumers of the workers' group, which are those of the workers that have read."""
        now = round(time.time() * 1000)
        found: dict[str, dict[str, Any]] = {}
        for names in partitions:
            try:
                with unavailable_if_away():
                    consumers: Any = await self._client.xinfo_consumers(names.deltas, GROUP)
            except (exceptions.ResponseError, StorageUnavailableError):
                continue  # no worker has read yet, or one server of a cluster is away: the findings say so
            for each in consumers:
                name = each["name"].decode(errors="replace")
                worker = found.setdefault(
                    name,
                    {"id": name, "seen": 0, "pending": 0, "partitions": [], "started": None, "version": None},
                )
                worker["seen"] = max(worker["seen"], now - each["idle"])
                worker["pending"] += each["pending"]
                worker["partitions"].append(names.partition)
        for worker in found.values():
            worker["state"] = "silent" if now - worker["seen"] > _SILENT_MS else "reads"
            if worker["partitions"] == [None]:
                worker["partitions"] = []
        return sorted(found.values(), key=lambda each: -each["seen"])[:200]

    async def _letters(self, policy: TextPolicy) -> dict[str, Any]:
        letters = AllLetters(self._client, self._settings.names)
        try:
            with unavailable_if_away():
                count = await letters.count()
                some = _first(letters.newest_first(), _LETTERS)
                newest = [stored async for stored in some] if count else []
        except SetupError:  # a key is no stream: the findings say so
            return {"count": 0, "newest": []}
        return {"count": count, "newest": [letter_json(each, policy) for each in newest]}

    async def _destinations(self) -> list[dict[str, Any]]:
        try:
            waiting = await backlogs(self._client, [names.alerts for names in self._partitions])
        except SetupError:  # as above
            waiting = {}
        page = await newest_entries(
            self._client, self._partitions, lambda names: names.deliveries, _DELIVERIES
        )
        last: dict[str, Delivery] = {}
        undelivered: dict[str, int] = {}
        for entry in page.entries:
            delivery = delivery_in(entry)
            if delivery is not None:
                last.setdefault(delivery.destination, delivery)
                undelivered.setdefault(delivery.destination, 0)
                undelivered[delivery.destination] += delivery.outcome != "delivered"
        now = round(time.time() * 1000)
        rows = []
        for name in sorted({*waiting, *self._types, *last}):
            backlog, newest = waiting.get(name), last.get(name)
            try:
                disabled = await RedisOutbox(self._client, self._settings.names, name).disabled_answer()
            except SetupError as error:
                disabled = f"unknown: {error}"
            rows.append(
                {
                    "name": name,
                    "type": self._types.get(name),
                    "state": "unused" if backlog is None else "disabled" if disabled else "enabled",
                    "disabled_answer": disabled,
                    "pending": None if backlog is None else backlog.alerts,
                    "oldest_ms": None if backlog is None else _age(backlog.oldest_ms, now),
                    "undelivered": undelivered.get(name, 0),
                    "last": None if newest is None else delivery_json(newest),
                }
            )
        return rows


def _age(oldest: int | None, now: int) -> int | None:
    """Return the age in ms of what came at a time; 0 if the clocks of producer and console differ."""
    return None if oldest is None else max(0, now - oldest)


async def _first(letters: AsyncIterator[StoredLetter], most: int) -> AsyncIterator[StoredLetter]:
    """Yield the first letters."""
    for _ in range(most):
        try:
            yield await anext(letters)
        except StopAsyncIteration:
            return
