"""Consoles that run in the process of a test, and clients of their event streams."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

from console.console_app import ConsoleApp
from console.console_settings import ConsoleSettings
from console.page_files import STATIC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.alerts.deciding.policy import LoadedPolicy


def settings_of(**given: Any) -> ConsoleSettings:
    """Return settings for a test."""
    return ConsoleSettings(**{"console_listen": "127.0.0.1:0", "redis_url": "redis://127.0.0.1:1", **given})


@dataclass
class Client:
    """A client of a console."""

    app: ConsoleApp
    session: aiohttp.ClientSession
    base: str

    def url(self, path: str) -> URL:
        """Return the URL of a path below the base path, which is sent as it is."""
        return URL(f"http://127.0.0.1:{self.app.port}{self.base}{path}", encoded=True)

    async def json(self, path: str, **how: Any) -> Any:
        """Return the JSON of an answer that succeeds."""
        async with self.session.get(self.url(path), **how) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            return await answer.json()

    async def status(self, path: str, method: str = "GET", **how: Any) -> int:
        """Return the status of an answer."""
        async with self.session.request(method, self.url(path), **how) as answer:
            return answer.status

    async def act(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        """Post JSON as a page of the console does; return the status and the JSON of the answer."""
        headers = {"Origin": str(self.url("").origin()), **headers}
        async with self.session.post(self.url(path), json=body, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_length else None

    @asynccontextmanager
    async def watching(self, path: str = "api/now", **how: Any) -> AsyncIterator[Watcher]:
        """Watch an event stream."""
        async with self.session.get(self.url(path), **how) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            yield Watcher(answer)


@dataclass
class Watcher:
    """A page that watches: what it would show."""

    answer: aiohttp.ClientResponse
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    last_id: str = ""

    async def next(self) -> dict[str, Any]:
        """Read the next event, and apply it as a page does."""
        lines: dict[str, str] = {}
        async for raw in self.answer.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                lines[name] = value
            elif "data" in lines:
                break
            else:
                lines = {}
        self.events.append(lines["event"])
        self.last, self.last_id = json.loads(lines["data"]), lines["id"]
        if lines["event"] == "state":
            self.rows.clear()
        for name in self.last.get("gone", ()):
            self.rows.pop(name, None)
        self.rows |= {row["id"]: row for row in self.last["responses"]}
        return self.last

    async def until(self, condition: Any) -> None:
        """Read events until a condition of the watcher is true."""
        while not condition(self):
            await self.next()


@asynccontextmanager
async def console(
    *,
    static: Path | None = None,
    allows_actions: bool = False,
    alerts_file: LoadedPolicy | None = None,
    **given: Any,
) -> AsyncIterator[Client]:
    """Run a console, and yield a client of it."""
    settings = settings_of(**given)
    app = ConsoleApp(
        settings, allows_actions=allows_actions, alerts_file=alerts_file, static=static or STATIC
    )
    await app.start()
    try:
        async with aiohttp.ClientSession(
            read_bufsize=2**22, timeout=aiohttp.ClientTimeout(total=30)
        ) as session:
            yield Client(app, session, settings.console_base_path)
    finally:
        await app.stop()
