"""Test how `deltaloom run` finds the command that called it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from service.cli.run import own_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a program in a virtual environment in the current folder that is not on the path."""
    file = tmp_path / ".venv" / "bin" / "deltaloom"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return file


@pytest.mark.parametrize("called", [".venv/bin/deltaloom", "{folder}/.venv/bin/deltaloom"])
def test_in_a_virtual_environment(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str
) -> None:
    """Show the path of the virtual environment, since another terminal would not find the bare name."""
    assert program.exists()
    monkeypatch.setattr(sys, "argv", [called.format(folder=tmp_path), "run"])
    assert own_command() == ".venv/bin/deltaloom"


def test_on_the_path(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the bare name if the path finds it."""
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(sys, "argv", [str(program), "run"])
    assert own_command() == "deltaloom"


def test_as_a_module(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show `python -m service` if it was called as a module."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/service/__main__.py", "run"])
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert own_command() == ".venv/bin/python -m service"
