"""Test how commands replace files that other programs read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.cli.alerts.heartbeat import _write
from service.cli.command_errors import CommandError
from service.cli.file_in_one_step import replace_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_old_content_is_gone_and_nothing_is_left_beside(tmp_path: Path) -> None:
    """A collector reads all files of the folder."""
    file = tmp_path / "deltaloom.prom"
    for content in (b"a longer content", b"new"):
        replace_file(file, content)
        assert file.read_bytes() == content
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("name", ["missing/deltaloom.prom", "."])
def test_a_file_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    """Print one line and no traceback; `alerts heartbeat --every` goes on, and writes the next time."""
    with pytest.raises(CommandError, match=f"{tmp_path}.* cannot be written: "):
        _write(tmp_path / name, {"on-call": 20})
