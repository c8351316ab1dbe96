"""Replace a file in one step, so that a program that reads it never sees a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.command_errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file, or create it.

    Raises:
        CommandError: the file cannot be written.
    """
    beside = file.parent / f".{file.name}.new"
    try:
        beside.write_bytes(content)
        beside.replace(file)
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from None
