"""Generate the table of docs/settings.md from the code: `python -m tests.docs.settings_table --write`."""

from __future__ import annotations

import sys
from pathlib import Path

from service.settings import Settings, variable

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def settings_table() -> list[str]:
    """Return the table's lines: variable, default, meaning."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        computed = field.default is None or field.default_factory is not None
        default = "" if computed else f"`{_written(field.default)}`"
        lines.append(f"| `{variable(name)}` | {default} | {field.description} |")
    return lines


def _written(value: object) -> str:
    """Return a value as written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def written_table(page: str) -> list[str]:
    """Return the lines of a page's first table."""
    below = page.splitlines()
    start = next(number for number, line in enumerate(below) if line.startswith("|"))
    length = next((n for n, line in enumerate(below[start:]) if not line.startswith("|")), len(below) - start)
    return below[start : start + length]


if __name__ == "__main__":
    table = settings_table()
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text("utf-8")
        PAGE.write_text(page.replace("\n".join(written_table(page)), "\n".join(table)), "utf-8")
    else:
        sys.stdout.write("\n".join(table) + "\n")
