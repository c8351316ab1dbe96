"""Generate the tables of docs/monitoring.md from the code: `python -m tests.docs.metrics_tables --write`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from service.observability.metrics.catalog import (
    OF_ARCHIVERS,
    OF_CONSOLES,
    OF_GROUPS,
    OF_RELAYS,
    OF_TAPS,
    OF_TRACES,
    OF_WORKERS,
    Metric,
)

PAGE = Path(__file__).parents[2] / "docs/monitoring.md"

TABLES = {
    "Workers": OF_WORKERS,
    "The group": OF_GROUPS,
    "Relays": OF_RELAYS,
    "Taps": OF_TAPS,
    "Traces": OF_TRACES,
    "Archivers": OF_ARCHIVERS,
    "Consoles": OF_CONSOLES,
}
"""The metrics of the first table below each heading."""

_TABLE = r"(?ms)(^## {heading}$.*?)(^\|.*?)(?=^[^|]|^$)"


def lines_of(metrics: tuple[Metric, ...]) -> list[str]:
    """Return a table's lines: name, type, labels, meaning, function that joins the values of processes."""
    lines = ["| metric | type | labels | meaning | of all processes |", "|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        together = {"mean": "avg"}.get(metric.together, metric.together)
        lines.append(f"| `{metric.full_name}` | {metric.kind} | {labels} | {metric.about} | {together} |")
    return lines


def with_tables(page: str) -> str:
    """Return a page with its tables as the code has them."""
    for heading, metrics in TABLES.items():
        found = re.search(_TABLE.format(heading=heading), page)
        if found is None:
            raise LookupError(f"{PAGE.name} has no table below {heading!r}")
        table = "\n".join(lines_of(metrics)) + "\n"
        page = page[: found.start(2)] + table + page[found.end(2) :]
    return page


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
    else:
        sys.stdout.write("\n".join(line for each in TABLES.values() for line in lines_of(each)) + "\n")
