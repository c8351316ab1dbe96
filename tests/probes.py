"""Probe a real worker as an orchestrator does: over HTTP, and with `deltaloom health`."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from embedded.free_ports import free_port
from service.observability.heartbeat_file import SETTING, health

if TYPE_CHECKING:
    from pathlib import Path

NO_ANSWER = 0
"""The status if there is no answer."""
_PATIENCE = 3.0
"""Seconds for which a probe waits for an answer."""


class Probes(NamedTuple):
    """The probes of a worker."""

    port: int
    heartbeat: Path

    @classmethod
    def of(cls, folder: Path) -> Probes:
        """Return the probes of a worker whose heartbeat file is in a folder."""
        return cls(free_port(), folder / "heartbeat")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the worker."""
        return {"http": f"127.0.0.1:{self.port}", "heartbeat_file": self.heartbeat}

    async def status(self, path: str) -> int:
        """Return the status of a path."""
        return (await self.got(path))[0]

    async def json(self, path: str) -> Any:
        """Return the JSON value of a path."""
        return json.loads((await self.got(path))[1])

    async def got(self, path: str) -> tuple[int, str]:
        """Return status and body of a path."""
        return await asyncio.to_thread(self._got, path)

    def _got(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=_PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return NO_ANSWER, ""

    def healthy(self) -> bool:
        """Return what `deltaloom health` says."""
        return health({SETTING: str(self.heartbeat)})[0]

    async def seen(self) -> tuple[int, int, bool]:
        """Return the statuses of `/livez` and `/readyz`, and what `deltaloom health` says."""
        livez, readyz = await asyncio.gather(self.status("/livez"), self.status("/readyz"))
        return livez, readyz, self.healthy()
