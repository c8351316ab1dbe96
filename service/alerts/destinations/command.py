"""A program that gets the alert as JSON on its standard input. No shell reads anything.

| exit status          | what becomes of the alert                                  |
|----------------------|------------------------------------------------------------|
| 0                    | delivered                                                  |
| 65 (EX_DATAERR)      | refused: it is given up                                    |
| 69 (EX_UNAVAILABLE)  | gone: nothing more is given to this destination            |
| any other, a signal  | again later, like a program that cannot be started or hangs |

The program is ended, and whatever it started with it, when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import answers, body, secrets, wording

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import CommandOptions

_ALWAYS = ("PATH", "HOME", "LANG", "TZ")
"""Variables that nearly every program needs; whatever else is in this process's environment stays here."""
_SAID_AT_MOST = 4096
"""Bytes of its error output that are kept."""
_LAST_WORDS = 1.0
"""Seconds for its pipes to end after it: somebody who left its process group may still hold them."""
_VERDICTS = {0: Verdict.DELIVERED, os.EX_DATAERR: Verdict.REFUSED, os.EX_UNAVAILABLE: Verdict.GONE}


class CommandDestination:
    """See the module."""

    def __init__(self, name: str, options: CommandOptions, environment: Mapping[str, str]) -> None:
        """Pick the program's environment; `DestinationError` if a variable of it is not there."""
        self.name = name
        self._command = options.command
        self._timeout = options.timeout
        handed_on = {each: secrets.from_variable(each, environment) for each in options.environment}
        self._environment = {each: environment[each] for each in _ALWAYS if each in environment} | handed_on
        self._secrets = frozenset(handed_on.values())

    async def deliver(self, notification: Notification) -> Outcome:
        """Run the program once."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                env=self._environment,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except (OSError, ValueError) as error:
            return Outcome(
                Verdict.RETRY, answers.line(f"the program cannot be started: {error}", self._secrets)
            )
        said = bytearray()
        pipes = [
            asyncio.create_task(_written(process, body.as_json(body.as_object(notification)) + b"\n")),
            asyncio.create_task(_heard(process, said)),
        ]
        try:
            async with asyncio.timeout(self._timeout):
                status = await process.wait()
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"the program was not done within {self._timeout:g} s")
        finally:
            await _ended(process, pipes)
        line = answers.line(bytes(said), self._secrets, wording.texts(notification))
        answer = f"exit status {status}" + (f": {line}" if line else "")
        return Outcome(_VERDICTS.get(status, Verdict.RETRY), answer)

    async def aclose(self) -> None:
        """Nothing is held."""


async def _written(process: Process, told: bytes) -> None:
    pipe = process.stdin
    if pipe is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it, or any
        pipe.write(told)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _heard(process: Process, said: bytearray) -> None:
    """Read all of its error output, so that it does not wait for us, and keep the beginning."""
    while process.stderr and (chunk := await process.stderr.read(_SAID_AT_MOST)):
        said += chunk[: _SAID_AT_MOST - len(said)]


async def _ended(process: Process, pipes: list[asyncio.Task[None]]) -> None:
    """End it, if it still runs, and what it started; then its pipes end too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.wait(pipes, timeout=_LAST_WORDS)
    for pipe in pipes:
        pipe.cancel()
    await asyncio.gather(*pipes, return_exceptions=True)
