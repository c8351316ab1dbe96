"""The command: run the measurements, write the results, report them."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from bench import options as command_line
from bench import plot, report
from bench.competitors import ALL
from bench.errors import BenchError
from bench.ground import ground
from bench.measurements import MEASUREMENTS
from bench.progress import Progress
from bench.results import Results
from bench.stage import Stage
from embedded import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.options import Options

WRONG, NOT_RUN, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench, and return the exit code."""
    options = command_line.parse(arguments, [each.name for each in MEASUREMENTS], [each.name for each in ALL])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options)
    except (BenchError, EmbeddedServerError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    return WRONG if results.wrong else 0


def run(options: Options) -> Results:
    """Run the measurements, and write the results after each."""
    results = Results()
    with ground(options.redis) as place, Progress() as progress:
        described = report.environment(options, place)
        stage = Stage(options, place, results, progress)
        progress.say(
            f"{described['server']}, {options.rounds} rounds, {options.events:,} events a run of a fast one: "
            f"{', '.join(options.only)}"
        )
        for measurement in MEASUREMENTS:
            if measurement.name in options.only:
                progress.say(f"{measurement.name}: {measurement.says}")
                stage.measurement = measurement.name
                measurement.measure(stage)
                report.write(results, described, options.output)
        plot.draw(results, described, options.output)
        place.clear()
    sys.stdout.writelines(f"{line}\n" for line in report.table(results, described))
    return results
