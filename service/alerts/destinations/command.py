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
        try:
            async with asyncio.timeout(self._timeout):
                said = await _told(process, body.as_json(body.as_object(notification)) + b"\n")
                status = await process.wait()
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"the program was not done within {self._timeout:g} s")
        finally:
            await _ended(process)
        line = answers.line(said, self._secrets, wording.texts(notification))
        answer = f"exit status {status}" + (f": {line}" if line else "")
        return Outcome(_VERDICTS.get(status, Verdict.RETRY), answer)

    async def aclose(self) -> None:
        """Nothing is held."""


async def _told(process: Process, told: bytes) -> bytes:
    """Write to its input and read its error output, both at once; it need not read, nor be short."""
    assert process.stdin, "a pipe was asked for"  # noqa: S101 - for the type
    assert process.stderr, "a pipe was asked for"  # noqa: S101 - for the type
    writing = asyncio.create_task(_written(process.stdin, told))
    try:
        said = b""
        while chunk := await process.stderr.read(_SAID_AT_MOST):
            said = (said + chunk)[:_SAID_AT_MOST]
        await writing
    finally:
        writing.cancel()
    return said


async def _written(pipe: asyncio.StreamWriter, told: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
        pipe.write(told)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _ended(process: Process) -> None:
    """End it, if it is there, and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
