"""The command: run, show, say how it went."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING

from chaos.command import INTERRUPTED, NOT_RUN, WRONG
from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import BenchError
from hostile import options as command_line
from hostile import report
from hostile.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostile.bench import Progress
    from hostile.options import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; returns the exit code."""
    options = command_line.parse(arguments)
    try:
        progress = run_to_the_end(run(options))
    except BenchError as error:
        sys.stderr.write(f"hostile: {error}\n")
        return NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    report.show(options, progress)
    if options.json is not None:
        report.write(options, progress, options.json)
    return WRONG if progress.verdict.violations else 0


async def run(options: Options) -> Progress:
    """Run it, showing how it goes."""
    bench = Bench(options)
    shown = asyncio.create_task(report.follow(options, bench.progress))
    try:
        return await bench.run()
    finally:
        await end_tasks(shown)
        shutil.rmtree(bench.folder / "appendonlydir", ignore_errors=True)
        if not (options.keep or bench.verdict.violations):
            shutil.rmtree(bench.folder, ignore_errors=True)
