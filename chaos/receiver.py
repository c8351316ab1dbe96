"""A receiver of alerts that fails at random: it refuses, hangs, cuts connections, and answers too late."""

from __future__ import annotations

import asyncio
import base64
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from embedded.free_ports import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SECRET_VARIABLE = "CHAOS_RECEIVER_SECRET"  # noqa: S105 - the name of a variable
SECRET = f"whsec_{base64.b64encode(b'not a secret: the bench talks to itself').decode()}"

_TIMEOUT = 2.0
"""Timeout of a relay's request, in seconds."""


_BEHAVIOUR = {"take": 88, "take, cut": 3, "take late": 1, "fail": 5, "cut": 3}
"""Behaviours with their weights (sum 100). After "cut" and "late" a relay cannot know what was accepted."""

_FAILURES = (408, 429, 500, 502, 503, 504)


class AttemptListener(Protocol):
    """A listener for attempts to deliver messages."""

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """Note an attempt to deliver a message, and whether it was accepted."""
        ...


_PATHS: dict[str, str] = {
    "one-by-one": "",
    "grouped": (
        'group = { by = ["model"], window = 1, from = 3 }\nrate_limit = { per_minute = 3000, burst = 20 }\n'
    ),
}
"""Destinations, with their additional options."""


class Receiver:
    """A receiver that accepts alerts or fails, and reports each attempt.

    Args:
        seed: seed of its behaviour.
        one_by_one: listener for the destination that gets each alert separately.
        grouped: listener for the destination with digests and a rate limit.
    """

    def __init__(self, seed: str, one_by_one: AttemptListener, grouped: AttemptListener) -> None:
        self._rng = random.Random(f"{seed}/receiver")
        self._listeners = {"one-by-one": one_by_one, "grouped": grouped}
        self._webhook = Webhook(SECRET)
        self.failing = True
        """False as soon as the faults have ended."""
        self.port = 0

    def configuration(self) -> str:
        """Return an `alerts.toml` that sends each alert here, to two destinations."""
        return "".join(
            f"[destinations.{name}]\n"
            'type = "webhook"\n'
            f'url = "http://{HOST}:{self.port}/{name}"\n'
            f'secret_env = "{SECRET_VARIABLE}"\n'
            f'allow_addresses = ["{HOST}/32"]\n'
            f"timeout = {_TIMEOUT}\n"
            f'begin = "all"\n{own}'
            for name, own in _PATHS.items()
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen while the block lasts."""
        application = web.Application()
        application.router.add_post("/{name}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            alert = self._webhook.verify(await request.read(), dict(request.headers.items()))
        except WebhookVerificationError:
            return web.Response(status=400)
        what = self._rng.choices(tuple(_BEHAVIOUR), tuple(_BEHAVIOUR.values()))[0] if self.failing else "take"
        self._listeners[request.match_info["name"]].attempt(alert, taken=what.startswith("take"))
        if what == "take late":
            await asyncio.sleep(_TIMEOUT * 1.5)
        if what.endswith("cut") and request.transport is not None:
            request.transport.abort()
        return self._failure() if what == "fail" else web.Response()

    def _failure(self) -> web.Response:
        status = self._rng.choice(_FAILURES)
        asks = {"Retry-After": "1"} if status == web.HTTPTooManyRequests.status_code else {}
        return web.Response(status=status, headers=asks)
