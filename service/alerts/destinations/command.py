"""A program that receives the alert as JSON on its standard input. No shell is involved.

| exit status          | effect on the alert                                        |
|----------------------|------------------------------------------------------------|
| 0                    | delivered                                                  |
| 65 (EX_DATAERR)      | refused: delivery of the alert is given up                 |
| 69 (EX_UNAVAILABLE)  | gone: the destination is disabled                          |
| any other, a signal  | retried later, as if the program cannot be started or hangs |

The program and all processes of its group are killed when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Literal

from pydantic import Field, FiniteFloat

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import answers, body, secrets, wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.options import CommonOptions, Variables

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

    from service.alerts.delivery import Notification

_ALWAYS = ("PATH", "HOME", "LANG", "TZ")
"""Variables passed on because nearly every program needs them; no others are, unless the table names them."""
_MAX_ERROR_BYTES = 4096
"""Maximum bytes of the program's error output that are kept."""
_PIPES_TIMEOUT = 1.0
"""Seconds to wait for the pipes after the program ended; a process that left its group may hold them open."""
_VERDICTS = {0: Verdict.DELIVERED, os.EX_DATAERR: Verdict.REFUSED, os.EX_UNAVAILABLE: Verdict.GONE}


class CommandOptions(CommonOptions):
    """Options of a program that receives the alert on its standard input."""

    type: Literal["command"]
    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments; no shell interprets them."""
    environment: Variables = ()
    """Variables passed to the program, in addition to `PATH`, `HOME`, `LANG` and `TZ`."""
    timeout: FiniteFloat = Field(default=10, gt=0, le=300)


class CommandDestination:
    """A destination that runs a program."""

    def __init__(self, name: str, options: CommandOptions, environment: Mapping[str, str]) -> None:
        """Collect the program's environment.

        Raises:
            DestinationError: a variable that the options name is not set, or empty.
        """
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
                start_new_session=True,  # a process group of its own, so that its children can be killed too
            )
        except (OSError, ValueError) as error:
            return Outcome(
                Verdict.RETRY, answers.line(f"the program cannot be started: {error}", self._secrets)
            )
        errors = bytearray()
        pipes = [
            asyncio.create_task(_write_input(process, body.as_json(body.as_object(notification)) + b"\n")),
            asyncio.create_task(_read_errors(process, errors)),
        ]
        try:
            async with asyncio.timeout(self._timeout):
                status = await process.wait()
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"the program did not finish within {self._timeout:g} s")
        finally:
            await _end(process, pipes)
        line = answers.line(bytes(errors), self._secrets, wording.texts(notification))
        answer = f"exit status {status}" + (f": {line}" if line else "")
        return Outcome(_VERDICTS.get(status, Verdict.RETRY), answer)

    async def aclose(self) -> None:
        """Do nothing; no resources are held."""


async def _write_input(process: Process, data: bytes) -> None:
    pipe = process.stdin
    if pipe is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the program may ignore its input
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _read_errors(process: Process, errors: bytearray) -> None:
    """Read all error output, so that the program does not block on a full pipe, and keep the beginning."""
    while process.stderr and (chunk := await process.stderr.read(_MAX_ERROR_BYTES)):
        errors += chunk[: _MAX_ERROR_BYTES - len(errors)]


async def _end(process: Process, pipes: list[asyncio.Task[None]]) -> None:
    """Kill the program and its process group, then let the pipes end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.wait(pipes, timeout=_PIPES_TIMEOUT)
    for pipe in pipes:
        pipe.cancel()
    await asyncio.gather(*pipes, return_exceptions=True)


destination = DestinationType(CommandOptions, CommandDestination)
