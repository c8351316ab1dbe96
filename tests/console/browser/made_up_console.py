"""A console with the real pages and made-up data: `python -m tests.console.browser.made_up_console`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING, Any

from aiohttp import web

from console.console_errors import ConsoleError
from console.page_files import HEADERS, PageFiles
from tests.console.browser import made_up_data as data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _now() -> int:
    return int(time.time() * 1000)


@dataclass
class MadeUpConsole:
    """The answers. A test changes them, and reads what was asked."""

    base: str = "/"
    me: dict[str, Any] = field(
        default_factory=lambda: {
            "user": "ada",
            "actions": True,
            "texts": "shown",
            "archive": True,
            "version": "0.3.0",
            "source": "deltaloom",
        }
    )
    responses: list[dict[str, Any]] = field(default_factory=list)
    whole: dict[str, Any] | None = None
    alerts: list[dict[str, Any]] = field(default_factory=list)
    health: dict[str, Any] | None = None
    token: str | None = None
    is_growing: bool = False
    """True to let the words of open responses grow."""
    changes: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    """Frames to send next, in tests that decide them; see `send`."""
    asked: list[str] = field(default_factory=list)
    address: str = ""
    loop: asyncio.AbstractEventLoop | None = None

    def send(self, **changes: Any) -> None:
        """Send a frame with changes to the page that listens; call it from another thread."""
        frame = {"at": _now(), "behind": False, "responses": [], "gone": [], **changes}
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.changes.put_nowait, frame)

    def application(self) -> web.Application:
        """Return the server's application, without a listener."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(self.base):
            return web.json_response({"error": f"the console is at {self.base}"}, status=HTTPStatus.NOT_FOUND)
        path = request.path.removeprefix(self.base)
        self.asked.append(f"{request.method} {path}?{request.query_string}")
        if not path.startswith("api/"):
            try:
                answer: web.StreamResponse = self.pages.answer(
                    request, path.removeprefix("static/") or "index.html"
                )
            except ConsoleError as error:
                answer = web.json_response({"error": error.sentence}, status=error.status)
        elif path == "api/now":
            return await self._stream(request)
        else:
            answer = await self._api(request, path.removeprefix("api/"))
        answer.headers.update(HEADERS)
        return answer

    pages = PageFiles()

    async def _api(self, request: web.Request, path: str) -> web.Response:
        if path == "session":
            return self._signed_in(await request.json())
        if self.token:
            sentence = "Sign in with the console's token."
            return web.json_response({"error": sentence}, status=HTTPStatus.UNAUTHORIZED)
        if path == "responses/unknown":
            sentence = "Nothing of this response is in Redis."
            return web.json_response({"error": sentence}, status=HTTPStatus.NOT_FOUND)
        return web.json_response(self._acted(path) if request.method == "POST" else self._told(request, path))

    def _signed_in(self, body: dict[str, str]) -> web.Response:
        if body["token"] != self.token:
            return web.json_response({"error": "This is not the token."}, status=HTTPStatus.FORBIDDEN)
        self.token = None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _acted(self, path: str) -> dict[str, Any]:
        if path.endswith("/seen"):
            return {"by": "ada", "at": _now()}
        return {"outcome": "delivered", "answer": "202 Accepted"}

    def _told(self, request: web.Request, path: str) -> dict[str, Any]:
        at = _now()
        query = request.query
        lost = query.get("outcome") == "undelivered"
        shown = [each for each in self.alerts if not lost or each["deliveries"][-1]["undelivered_id"]]
        alerts = {"at": at, "alerts": shown, "next": None, "undelivered": 3, "unknown": []}
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "me": lambda: self.me,
            "alerts": lambda: alerts,
            "rates": lambda: data.rates(at, query.get("by", "model"), query.get("name")),
            "health": lambda: self.health or data.health(at),
            "search": lambda: {"at": at, "hits": data.hits(at, query["q"]), "next": None, "unknown": []},
        }
        if path.startswith("responses/"):
            return self.whole or data.whole(path.split("/", 1)[1], at)
        return answers[path]()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await stream.prepare(request)
        wanted = {
            name: value for name, value in request.query.items() if name in {"model", "tenant", "provider"}
        }
        shown = [
            each for each in self.responses if all(each[name] == value for name, value in wanted.items())
        ]
        if request.query.get("status") == "refused":
            shown = [each for each in shown if each["refused"]]
        hides = self.me["texts"] == "hidden" and request.query.get("texts") != "1"
        if hides:
            shown = [
                {**each, "parts": [{**part, "text": None, "hidden": True} for part in each["parts"]]}
                for each in shown
            ]

        async def send(kind: str, frame: dict[str, Any]) -> None:
            await stream.write(f"id: {frame['at']}\nevent: {kind}\ndata: {json.dumps(frame)}\n\n".encode())

        await send("state", data.now(_now(), shown))
        turn = 0
        while True:
            if self.is_growing:
                await asyncio.sleep(0.1)
                turn += 1
                changed = [grown(each, turn) for each in shown if each["status"] == "open"]
                counters = {**data.now(_now(), [])["counters"], "matching": len(shown)}
                await send(
                    "change",
                    {"at": _now(), "behind": False, "responses": changed, "gone": [], "counters": counters},
                )
            else:
                await send("change", await self.changes.get())


def grown(response: dict[str, Any], turn: int) -> dict[str, Any]:
    """Return a response with more words in its last part."""
    last = response["parts"][-1]
    source = {"refusal": data.SORRY, "reasoning": data.THINKING}.get(last["kind"], data.ANSWER) * 30
    length = min(len(source), last["length"] + 3 * turn)
    return {**response, "parts": [*response["parts"][:-1], data.part(last["kind"], source[:length])]}


async def _stop(runner: web.AppRunner) -> None:
    """Stop a server, and the streams that it still writes."""
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def served(console: MadeUpConsole, port: int = 0) -> Iterator[MadeUpConsole]:
    """Serve a console on loopback, in a thread."""
    loop = console.loop = asyncio.new_event_loop()
    runner = web.AppRunner(console.application(), handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}{console.base}"

    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    console.address = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield console
    finally:
        asyncio.run_coroutine_threadsafe(_stop(runner), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def filled(count: int = 12) -> MadeUpConsole:
    """Return a console with responses and alerts."""
    at = _now()
    responses = [data.response(n, at) for n in range(count)]
    if count > 7:
        responses[7] = data.blocked(7, at)
    return MadeUpConsole(responses=responses, alerts=[data.spike(at), *(data.alert(n, at) for n in range(9))])


if __name__ == "__main__":
    console = filled(24)
    console.is_growing = True
    with served(console, int(sys.argv[1]) if len(sys.argv) > 1 else 8190):
        print(console.address, flush=True)  # noqa: T201 - output of a program
        while True:
            time.sleep(3600)
