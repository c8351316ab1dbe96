"""The result of a run, for people and for machines."""

from __future__ import annotations

import json
import statistics
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos import live
from chaos.verdict import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.bench import Progress
    from chaos.options import Options


async def follow(options: Options, progress: Progress) -> None:
    """Show the progress until cancelled."""
    heading = (
        f"chaos: seed {options.seed}, {options.minutes:g} min, {options.workers} workers, "
        f"{options.producers} producers"
    )
    await live.follow(heading, partial(_line, progress))


def _line(progress: Progress) -> str:
    totals = progress.verdict.totals
    violations = sum(progress.verdict.violations.values())
    return (
        f"{time.monotonic() - progress.began:5.0f} s  {progress.phase:<10}  {totals['events']:>9,} events  "
        f"{totals['texts out']:>7,} texts  lag {progress.lag:>5,}  workers {progress.workers}  "
        f"kills {progress.faults['worker-kill']} + {progress.faults['server-kill']}  violations {violations}"
    )


def show(options: Options, progress: Progress) -> None:
    """Print the table of results, and examples of the violations."""
    console = Console()
    result = as_dict(options, progress)
    table = Table(title=f"chaos, seed {options.seed}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right")
    for section, before in (("run", ""), ("faults", "fault: "), ("counts", ""), ("metrics", "metric: ")):
        for name, value in result[section].items():
            table.add_row(f"{before}{name}", _shown(value))
        table.add_section()
    for name, value in result["violations"].items():
        table.add_row(name, Text(_shown(value), style="bold red" if value else "green"))
    console.print(table)
    for line, count in progress.log_lines.most_common(5):
        console.print(f"in the workers' logs, {count} times: {line}", highlight=False, markup=False)
    verdict = progress.verdict
    if verdict.violations:
        for kind, examples in verdict.examples.items():
            for example in examples:
                console.print(
                    f"{kind}: {example}", style="red", highlight=False, markup=False, soft_wrap=True
                )
        console.print(
            f"{sum(verdict.violations.values())} violations with seed {options.seed}; "
            f"the workers' logs are in {progress.folder}",
            style="bold red",
            highlight=False,
        )
    else:
        console.print(
            "Nothing lost, nothing wrong, nothing doubled, everything accounted for.", style="green"
        )


def as_dict(options: Options, progress: Progress) -> dict[str, Any]:
    """Return the result as plain data."""
    totals = progress.verdict.totals
    delays = sorted(progress.takeover_delays)
    seconds = max(progress.seconds, 0.001)
    types = sum(count for name, count in totals.items() if name.startswith("type:"))
    return {
        "seed": options.seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "run": {
            "seconds published": round(seconds, 1),
            "workers": options.workers,
            "relays": options.relays,
            "worker processes started": progress.workers_started,
            "events per second": round(totals["events"] / seconds),
        },
        "faults": {kind: progress.faults[kind] for kind in options.intervals},
        "counts": {
            "responses": totals["responses"],
            "entries": totals["entries"],
            "events": totals["events"],
            "deltas in": totals["deltas"],
            "deltas in texts": totals["deltas out"],
            "deltas late": totals["late"],
            "closings": totals["closings"],
            "events of unknown types": types,
            "dead letters": totals["dead letters out"],
            "texts": totals["texts out"],
            "alerts": totals["alerts out"],
            "alerts delivered": progress.deliveries.arrived,
            "attempts to deliver": progress.deliveries.attempts,
            "delivered again, with the same id": progress.deliveries.repeats,
            "digests delivered": progress.grouped.digests,
            "alerts delivered in digests": progress.grouped.in_digests,
            "responses unclear (producer held up)": len(progress.verdict.unclear),
            "entries looked up after lost replies": progress.looked_up,
            "entries of killed workers taken over": progress.entries_taken_over,
            "taken over after, median s": round(statistics.median(delays), 2) if delays else None,
            "taken over after, longest s": round(delays[-1], 2) if delays else None,
        },
        "metrics": progress.metrics,
        "violations": {kind: progress.verdict.violations[kind] for kind in KINDS},
        "examples": progress.verdict.examples,
        "log": dict(progress.log_lines),
    }


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def write(options: Options, progress: Progress, path: Path) -> None:
    """Write the result as JSON."""
    text = json.dumps(as_dict(options, progress), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
