"""The receiver: accepts alerts as signed webhooks, as an on-call system would."""

from __future__ import annotations

import base64
import secrets
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from deltaloom.messages import ModerationAlert
from demo.progress import Rang

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from demo.clock import Clock
    from demo.progress import Progress

_HOST: Final = "127.0.0.1"
SECRET: Final = "DEMO_WEBHOOK_SECRET"  # noqa: S105 - the name of the variable
"""Name of the environment variable with the relay's signing secret."""


class Webhooks:
    """A webhook receiver. Connections are possible from the start, and answered within `taking`."""

    def __init__(self) -> None:
        self._socket = socket.create_server((_HOST, 0))
        self._signed = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that the relay needs for signing."""
        return {SECRET: self._signed}

    def configure(self, file: Path) -> Path:
        """Write the relay's `alerts.toml`, and return its path."""
        port = self._socket.getsockname()[1]
        file.write_text(
            "[destinations.webhook]\n"
            'type = "webhook"\n'
            f'url = "http://{_HOST}:{port}/"\n'
            f'secret_env = "{SECRET}"\n'
            f'allow_addresses = ["{_HOST}"]\n'
            "[[routes]]\n"
            'to = "webhook"\n'
            'text = "full"\n',
            encoding="utf-8",
        )
        return file

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @asynccontextmanager
    async def taking(self, progress: Progress, clock: Clock) -> AsyncIterator[None]:
        """Accept requests within the block."""
        verifier = Webhook(self._signed)

        async def take(request: web.Request) -> web.Response:
            now_ms = time.time_ns() // 1_000_000
            try:
                said = verifier.verify(await request.read(), dict(request.headers.items()))
            except WebhookVerificationError as error:
                progress.refused.append(str(error))
                return web.Response(status=401)
            delivery = said.pop("delivery")
            alert = ModerationAlert.model_validate(said)
            progress.webhook_rang(Rang(now_ms, alert, delivery["severity"], delivery["category"]), clock.now)
            return web.Response(status=204)

        application = web.Application()
        application.router.add_post("/", take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            yield
        finally:
            await runner.cleanup()
