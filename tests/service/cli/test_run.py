"""Test `deltaloom run`: the command that called it, and an installation without the embedded server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from service.cli.run import own_command
from tests.service.cli.command import deltaloom_process, environment

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


def test_without_the_embedded_server(tmp_path: Path) -> None:
    """Name both remedies in one line where only the wheel is installed, as in the image."""
    (tmp_path / "embedded.py").write_text("raise ModuleNotFoundError")
    shown = deltaloom_process("run", env=environment(), cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "")
    (line,) = shown.stderr.splitlines()
    assert "set REDIS_URL=" in line
    assert "make run" in line
