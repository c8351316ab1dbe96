"""Generate the table of docs/settings.md from the code: `python -m tests.docs.settings_table --write`."""

from __future__ import annotations

import sys
from pathlib import Path

from archive.archive_settings import ArchiveSettings
from console.console_settings import ConsoleSettings
from service.settings import Settings, variable
from tap.tap_settings import TapSettings

_DOCS = Path(__file__).parents[2] / "docs"
SETTINGS_OF: dict[Path, type[Settings]] = {
    _DOCS / "settings.md": Settings,
    _DOCS / "archive.md": ArchiveSettings,
    _DOCS / "console.md": ConsoleSettings,
    _DOCS / "tap.md": TapSettings,
}
"""Settings that the last table of a page lists, without those that they share with others."""


def settings_table(settings: type[Settings] = Settings) -> list[str]:
    """Return the table's lines: variable, default, meaning."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    shared = {name for base in settings.__bases__ for name in getattr(base, "model_fields", ())}
    for name, field in settings.model_fields.items():
        if name in shared:
            continue
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
    """Return the lines of a page's table of variables."""
    below = page.splitlines()
    start = next(number for number, line in enumerate(below) if line.startswith("| variable |"))
    length = next((n for n, line in enumerate(below[start:]) if not line.startswith("|")), len(below) - start)
    return below[start : start + length]


if __name__ == "__main__":
    for path, listed in SETTINGS_OF.items():
        table = settings_table(listed)
        if "--write" in sys.argv[1:]:
            page = path.read_text("utf-8")
            path.write_text(page.replace("\n".join(written_table(page)), "\n".join(table)), "utf-8")
        else:
            sys.stdout.write("\n".join(table) + "\n")
