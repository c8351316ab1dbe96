"""A webhook receiver that verifies and records messages, and answers as a test specifies."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from standardwebhooks import Webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = f"whsec_{base64.b64encode(b'not a secret: what the tests sign with').decode()}"

Answer = Callable[[str, int], "web.Response | None"]
"""Function of a message's id and its number of attempts: the response, or None to cut the connection."""


@dataclass(frozen=True)
class Received:
    """A recorded request."""

    id: str
    body: dict[str, Any]
    at: float
    """Time on the monotonic clock, in seconds."""
    status: int
    """Status of the answer; 0 if the connection was cut."""


def _ok(_id: str, _count: int) -> web.Response:
    return web.Response()


@dataclass
class Receiver:
    """Recorded requests, and the answer to give: 200, or the result of `answer`."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    answer: Answer = _ok
    came: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> list[str]:
        """Return the ids of the messages that were answered with 200, in order."""
        return [request.id for request in self.requests if request.status == web.HTTPOk.status_code]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Verify, record and answer one request."""
        message_id = request.headers["webhook-id"]
        body = Webhook(SECRET).verify(await request.read(), dict(request.headers.items()))
        self.came[message_id] += 1
        response = self.answer(message_id, self.came[message_id])
        status = 0 if response is None else response.status
        self.requests.append(Received(message_id, body, time.monotonic(), status))
        if response is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return response


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/", receiver.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/"
    try:
        yield receiver
    finally:
        await runner.cleanup()
