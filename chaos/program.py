"""The parts that all benches share as programs: run, show the progress, report the result."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING, Any, Protocol

from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import BenchError
from embedded import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

WRONG, NOT_RUN, INTERRUPTED = 1, 2, 130


class Options(Protocol):
    """The options that all benches have."""

    @property
    def json(self) -> Path | None:
        """Return the path for the result, or None."""
        ...

    @property
    def keep(self) -> bool:
        """Return whether to keep the folder of a run without violations."""
        ...


class Bench(Protocol):
    """A bench that has not started."""

    folder: Path
    verdict: Any
    progress: Any

    async def run(self) -> Any:
        """Run the bench, and return its final progress."""
        ...


def carry_out(
    name: str,
    make: Callable[[Any], Bench],
    options: Options,
    report: Any,
    run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
) -> int:
    """Run a bench with `run`, and return the exit code.

    0 without violations, else `WRONG`, `NOT_RUN` or `INTERRUPTED`.
    """
    try:
        progress = run_to_the_end(_run(make, options, report), run)
    except (BenchError, EmbeddedServerError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    report.show(options, progress)
    if options.json is not None:
        report.write(options, progress, options.json)
    return WRONG if progress.verdict.violations else 0


async def _run(make: Callable[[Any], Bench], options: Options, report: Any) -> Any:
    """Run a bench while its progress is shown, and remove its folder unless it is to be kept."""
    bench = make(options)
    shown = asyncio.create_task(report.follow(options, bench.progress))
    try:
        return await bench.run()
    finally:
        await end_tasks(shown)
        shutil.rmtree(bench.folder / "appendonlydir", ignore_errors=True)
        if not (options.keep or bench.verdict.violations):
            shutil.rmtree(bench.folder, ignore_errors=True)
