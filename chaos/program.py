"""What benches have in common as programs: run, show how it goes, say how it went."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING, Any, Protocol

from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRONG, NOT_RUN, INTERRUPTED = 1, 2, 130


class Options(Protocol):
    """What every run is asked for."""

    @property
    def json(self) -> Path | None:
        """Where the result goes."""
        ...

    @property
    def keep(self) -> bool:
        """Whether to keep the folder of a run in which nothing was wrong."""
        ...


class Bench(Protocol):
    """A run that has not begun."""

    folder: Path
    verdict: Any
    progress: Any

    async def run(self) -> Any:
        """Run it; returns the progress that it has made."""
        ...


def carry_out(name: str, make: Callable[[Any], Bench], options: Options, report: Any) -> int:
    """Run a bench; returns the exit code."""
    try:
        progress = run_to_the_end(_run(make, options, report))
    except BenchError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    report.show(options, progress)
    if options.json is not None:
        report.write(options, progress, options.json)
    return WRONG if progress.verdict.violations else 0


async def _run(make: Callable[[Any], Bench], options: Options, report: Any) -> Any:
    """Run it, showing how it goes."""
    bench = make(options)
    shown = asyncio.create_task(report.follow(options, bench.progress))
    try:
        return await bench.run()
    finally:
        await end_tasks(shown)
        shutil.rmtree(bench.folder / "appendonlydir", ignore_errors=True)
        if not (options.keep or bench.verdict.violations):
            shutil.rmtree(bench.folder, ignore_errors=True)
