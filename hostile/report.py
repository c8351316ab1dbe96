"""The result of a run, for people and for machines."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos import live
from hostile import limits
from hostile.verdict import HONEST_KINDS, HOSTILE_KINDS, KINDS, PROCESS_KINDS, quantile

if TYPE_CHECKING:
    from pathlib import Path

    from hostile.bench import Progress
    from hostile.options import Options

_MEBIBYTE = 2**20
_WIDTH = 110
"""Characters of a line if the output is not a terminal."""
_EXAMPLE = 400
"""Maximum characters of an example."""


async def follow(options: Options, progress: Progress) -> None:
    """Show the progress until cancelled."""
    heading = (
        f"hostile: seed {options.seed}, {options.minutes:g} min, {options.workers} workers, "
        f"{len(options.generators)} generators, {options.honest:g} honest responses/s"
    )
    await live.follow(heading, partial(_line, progress))


def _line(progress: Progress) -> str:
    verdict = progress.verdict
    peak = max(progress.memory.peaks.values(), default=0) / _MEBIBYTE
    return (
        f"{time.monotonic() - progress.began:4.0f} s  {progress.phase:<8}  "
        f"{verdict.totals['texts out']:>6,} honest texts  {verdict.ledger.bytes / 1e6:>6.1f} MB hostile  "
        f"lag {progress.lag:>6,}  RSS {peak:>4.0f} MiB  violations {sum(verdict.violations.values())}"
    )


def show(options: Options, progress: Progress) -> None:
    """Print the tables of results, and examples of the violations."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    result = as_dict(options, progress)
    console.print(_generators(result))
    console.print(_results(options, result))
    verdict = progress.verdict
    if not verdict.violations:
        console.print("Hostile input cost only itself.", style="green")
        return
    for kind, examples in verdict.examples.items():
        for example in examples:
            console.print(
                f"{kind}: {_shortened(example)}", style="red", highlight=False, markup=False, soft_wrap=True
            )
    console.print(
        f"{sum(verdict.violations.values()):,} violations with seed {options.seed}; "
        f"the logs are in {progress.folder}",
        style="bold red",
        highlight=False,
        soft_wrap=True,
    )


def _shortened(example: str) -> str:
    return example if len(example) <= _EXAMPLE else f"{example[:_EXAMPLE]}…"


def _generators(result: dict[str, Any]) -> Table:
    title = "hostile entries, and what was stored of them"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("generator", no_wrap=True)
    for name in ("entries", "events", "MB in", "letters", "outputs", "MB out", "out/in"):
        table.add_column(name, justify="right")
    for name, account in result["generators"].items():
        sent, stored = account["bytes"], account["stored"]
        table.add_row(
            name,
            *(f"{account[each]:,}" for each in ("entries", "events")),
            f"{sent / 1e6:,.2f}",
            *(f"{account[each]:,}" for each in ("dead letters", "outputs")),
            f"{stored / 1e6:,.2f}",
            f"{stored / sent:,.2f}" if sent else "-",
        )
    return table


def _results(options: Options, result: dict[str, Any]) -> Table:
    table = Table(title=f"hostile, seed {options.seed}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right")
    for name, value in result["counts"].items():
        table.add_row(name, _shown(value))
    for kinds in (HONEST_KINDS, HOSTILE_KINDS, PROCESS_KINDS):
        table.add_section()
        for kind in kinds:
            value = result["violations"][kind]
            table.add_row(kind, Text(_shown(value), style="bold red" if value else "green"))
    return table


def as_dict(options: Options, progress: Progress) -> dict[str, Any]:
    """Return the result as plain data."""
    verdict, totals = progress.verdict, progress.verdict.totals
    ledger, slow = verdict.ledger, progress.slow
    before, loaded = quantile(verdict.times[True]), quantile(verdict.times[False])
    return {
        "seed": options.seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "generators": {
            name: {
                "entries": account.entries,
                "events": account.events,
                "bytes": account.bytes,
                "dead letters": account.letters,
                "outputs": account.outputs,
                "stored": account.stored + account.keys,
            }
            for name, account in sorted(ledger.accounts.items())
        },
        "counts": {
            "seconds with hostile load": round(progress.seconds, 1),
            "hostile MB/s": round(ledger.bytes / 1e6 / max(progress.seconds, 0.001), 2),
            "hostile entries": ledger.entries,
            "hostile entries that the server refused": ledger.refused,
            "honest responses": totals["responses"],
            "honest events": totals["events"],
            "honest texts": totals["texts out"],
            "honest texts with a stranger's at their place": totals["items of strangers"],
            "honest alerts": totals["alerts out"],
            "honest alerts delivered": progress.deliveries.arrived,
            "hostile alerts delivered": progress.deliveries.hostile,
            "honest alerts on their way, p99 ms": _rounded(
                quantile([1000 * seconds for seconds in progress.deliveries.times().values()])
            ),
            "responses unclear (producer held up)": len(verdict.unclear),
            "texts without hostile load, p99 ms": _rounded(before),
            "texts beside hostile load, p99 ms": _rounded(loaded),
            "slowest text, ms": _rounded(max(verdict.times[False], default=None)),
            **{
                f"memory of a {name}, peak MiB": size // _MEBIBYTE
                for name, size in progress.memory.peaks.items()
            },
            "memory of the server, peak MiB": progress.server_peak // _MEBIBYTE,
            "responses open, most": progress.most_open,
            "log, MB": round(progress.log_bytes / 1e6, 1),
            **{f"slow command of ours: {name}, ms": round(ms) for name, ms in slow.ours.items()},
            **{
                f"slow command of hostile producers: {name}, ms": round(ms)
                for name, ms in slow.hostile.items()
            },
            "asked to leave a destination alone": progress.receiver.asked,
        },
        "violations": {kind: verdict.violations[kind] for kind in KINDS},
        "examples": verdict.examples,
        "limits": {
            "slowdown": options.slowdown,
            "floor ms": limits.FLOOR_MS,
            "late s": options.late,
            "late delivery s": options.late_delivery,
            "stored per byte": options.per_byte,
            "stored per event": options.per_event,
            "memory MiB": limits.MEMORY // _MEBIBYTE,
            "slow command ms": options.slow_command,
        },
    }


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def write(options: Options, progress: Progress, path: Path) -> None:
    """Write the result as JSON."""
    text = json.dumps(as_dict(options, progress), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
