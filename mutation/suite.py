"""Runs of tests in a copy of the tree, until the first test fails."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutation.checkout import Checkout

_GRACE: Final = 20.0
"""Seconds that interrupted tests get to stop their servers."""

_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+\.py.*?)(?: - .*)?$", re.MULTILINE)
_NO_CONFTEST: Final = re.compile(r"ImportError while loading conftest|^INTERNALERROR>", re.MULTILINE)
_PASSED: Final = re.compile(r"^=*\s*\d+ (?:passed|skipped)", re.MULTILINE)

_OPTIONS: Final = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "--hypothesis-seed=0",
    "--hypothesis-profile=mutants",
)
"""Options of pytest. The examples are the same each time, so that the same tests notice the same change."""


class SuiteError(Exception):
    """An error: the tests could not be run, so that they neither passed nor failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    red: bool
    test: str | None
    """The test that failed first; None if none failed, or if the time was over."""
    seconds: float


async def run_tests(checkout: Checkout, tests: Sequence[str], limit: float, processes: int = 0) -> Outcome:
    """Run tests.

    Args:
        checkout: copy to run them in.
        tests: files, folders or ids.
        limit: seconds after which they count as failed, so that a hanging program is noticed.
        processes: number of processes that share the tests; 0 runs them one after the other, in this order.
    """
    parallel = (f"--numprocesses={processes}", "--dist=worksteal" if processes else "--dist=no")
    return await _run(checkout, (str(checkout.python), "-m", "pytest", *_OPTIONS, *parallel, *tests), limit)


async def make_test(checkout: Checkout, limit: float) -> Outcome:
    """Run `make test`."""
    return await _run(checkout, ("make", "test", f"ARGS={' '.join(_OPTIONS)}"), limit)


async def _run(checkout: Checkout, command: Sequence[str], limit: float) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=checkout.folder,
            env=checkout.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = await asyncio.wait_for(process.wait(), limit)
        except TimeoutError:
            code = None
        finally:
            await _end(process)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    return _outcome(command, code, printed, time.monotonic() - began)


def _outcome(command: Sequence[str], code: int | None, output: str, seconds: float) -> Outcome:
    if code is None:
        return Outcome(red=True, test=None, seconds=seconds)
    if code == 0 and _PASSED.search(output):
        return Outcome(red=False, test=None, seconds=seconds)
    failed = _FAILED.search(output)
    if code != 0 and (failed or _NO_CONFTEST.search(output) or code < 0):
        return Outcome(red=True, test=failed and failed[1], seconds=seconds)
    end = "\n".join(output.splitlines()[-15:])
    raise SuiteError(f"{' '.join(command)} ended with {code}, and no test failed:\n{end}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a run that is not over: interrupt it to let it clean up, then kill it with its children."""
    for number, grace in ((signal.SIGINT, _GRACE), (signal.SIGKILL, None)):
        if process.returncode is not None:
            return
        with suppress(TimeoutError):
            os.killpg(process.pid, number)
            await asyncio.wait_for(process.wait(), grace)
