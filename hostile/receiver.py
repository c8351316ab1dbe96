"""A receiver that accepts all alerts; a second destination requests pauses in all ways that servers do."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from chaos.receiver import SECRET, SECRET_VARIABLE
from embedded.free_ports import HOST
from hostile import limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chaos.receiver import AttemptListener

_DIGEST_WINDOW = 5.0
"""Seconds for which similar alerts are collected."""

_RETRY_AFTER = ("1", "7200", "Wed, 21 Oct 2099 07:28:00 GMT", "4102444800", "1000000000000", "-1", "soon", "")
_ANSWERS = ((429, 503), _RETRY_AFTER)
_TRIES_AGAIN_WITHIN = limits.PAUSE + 10
"""Maximum seconds between two attempts, with some tolerance for a busy relay."""


class Receiver:
    """The receiver for all destinations.

    Args:
        listener: receives each attempt at the honest destination; another destination gets digests.
        odd: whether to add the destination that requests pauses.
    """

    def __init__(self, listener: AttemptListener, *, odd: bool) -> None:
        self._listener = listener
        self._odd = odd
        self._webhook = Webhook(SECRET)
        self._answers = itertools.cycle(itertools.product(*_ANSWERS))
        self._last: float | None = None
        self.asked = 0
        """Number of pauses that the odd destination has requested."""
        self.longest_pause = 0.0
        self.port = 0

    def configuration(self) -> str:
        """Return an `alerts.toml` that sends each alert, with its full text, to each destination."""
        names = ["honest", "digests", *(["odd"] if self._odd else [])]
        options = {"digests": f"group = {{ window = {_DIGEST_WINDOW:g} }}\n"}
        destinations = "".join(
            f"[destinations.{name}]\n"
            'type = "webhook"\n'
            f'url = "http://{HOST}:{self.port}/{name}"\n'
            f'secret_env = "{SECRET_VARIABLE}"\n'
            f'allow_addresses = ["{HOST}/32"]\n'
            f'begin = "all"\n'
            f"max_retry_after = {limits.MAX_RETRY_AFTER:g}\n{options.get(name, '')}"
            for name in names
        )
        return f'{destinations}[[routes]]\nname = "everything"\nto = {names}\ntext = "full"\n'

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen while the block lasts."""
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_post("/honest", self._honest)
        application.router.add_post("/digests", self._take)
        application.router.add_post("/odd", self._request_pause)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _honest(self, request: web.Request) -> web.Response:
        try:
            alert = self._webhook.verify(await request.read(), dict(request.headers.items()))
        except WebhookVerificationError:
            return web.Response(status=400)
        self._listener.attempt(alert, taken=True)
        return web.Response()

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async def _request_pause(self, request: web.Request) -> web.Response:
        await request.read()
        now = asyncio.get_running_loop().time()
        if self._last is not None:
            self.longest_pause = max(self.longest_pause, now - self._last)
        self._last = now
        self.asked += 1
        status, seconds = next(self._answers)
        return web.Response(status=status, headers={"Retry-After": seconds})

    def judge(self, violate: Callable[[str, str], None]) -> None:
        """Report a pause of the odd destination that was too long. Alerts must have come all the time."""
        if self._last is None:
            return
        longest = max(self.longest_pause, asyncio.get_running_loop().time() - self._last)
        if longest > _TRIES_AGAIN_WITHIN:
            most = f"at most {_TRIES_AGAIN_WITHIN:g} s"
            violate("not tried again", f"the odd destination had no attempt for {longest:.1f} s; {most}")
