"""Test heartbeat files and the check that reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from service.observability import heartbeat_file
from service.observability.heartbeat_file import SETTING, Heartbeat, HeartbeatFile, health, path_of
from tests.service.cli.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

WELL = Heartbeat(os.getpid(), 1, started=True, not_ready=[], stuck=[])


def changed(path: Path, **fields: object) -> None:
    """Change fields of a heartbeat file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_process_is_healthy_while_its_heartbeat_is_young(tmp_path: Path) -> None:
    """A missing, an old and an odd file, and one that says what is stuck, are unhealthy."""
    path, environment = tmp_path / "beat", {SETTING: str(tmp_path / "beat")}
    assert health(environment) == (False, f"unhealthy: no process has written a heartbeat file ({path})")
    file = HeartbeatFile(path)
    file.write(WELL)
    assert health(environment) == (True, f"healthy: 1 process (pid {os.getpid()})")
    changed(path, monotonic=json.loads(path.read_text())["monotonic"] - 11)
    assert health(environment) == (False, f"unhealthy: beat (pid {os.getpid()}): no sign of life for 11 s")
    file.write(WELL._replace(stuck=["a batch"]))
    assert health(environment) == (False, f"unhealthy: beat (pid {os.getpid()}): a batch")
    file.write(WELL._replace(stuck=["a\n\u202e"]))
    assert health(environment) == (False, f"unhealthy: beat (pid {os.getpid()}): a\\n\\u202e")
    path.write_text("{}")
    assert health(environment) == (False, "unhealthy: beat: no sign of life yet")


def test_the_file_of_another_boot_is_judged_by_its_time(tmp_path: Path) -> None:
    """The monotonic clock of another boot has another origin."""
    path, environment = tmp_path / "beat", {SETTING: str(tmp_path / "beat")}
    HeartbeatFile(path).write(WELL)
    changed(path, boot="another", monotonic=0)
    assert health(environment)[0]
    os.utime(path, (1, 1))
    assert not health(environment)[0]


def test_all_processes_must_be_healthy(tmp_path: Path) -> None:
    """A single one that is old, or has never written, makes all unhealthy."""
    environment = {SETTING: str(tmp_path / "beat")}
    (tmp_path / "beat.new").write_text("")
    HeartbeatFile(path_of(environment, 7, 1)).write(WELL._replace(processes=2))
    assert health(environment) == (False, "unhealthy: 1 of 2 processes without a heartbeat file")
    HeartbeatFile(path_of(environment, 7, 2)).write(WELL._replace(processes=2))
    assert health(environment) == (True, f"healthy: 2 processes (pid {os.getpid()}, {os.getpid()})")
    changed(tmp_path / "beat.2", monotonic=0)
    assert not health(environment)[0]


def test_the_default_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that others may write to is not used; files of programs that are gone do not count."""
    folders = [tmp_path / "others", tmp_path / "missing" / "folder", tmp_path / "own"]
    folders[0].mkdir(mode=0o777)
    folders[0].chmod(0o777)
    monkeypatch.setattr(heartbeat_file, "_folders", lambda _: folders)
    path = path_of({}, os.getpid())
    assert path == folders[2] / f"{os.getpid()}.heartbeat"
    assert folders[2].stat().st_mode & 0o777 == 0o700
    HeartbeatFile(path).write(WELL)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    HeartbeatFile(path_of({}, gone.pid)).write(WELL._replace(stuck=["killed"]))
    assert health({}) == (True, f"healthy: 1 process (pid {os.getpid()})")
    heartbeat_file.remove_old({})
    assert list(folders[2].iterdir()) == [path]


def test_the_command_imports_nothing_heavy(tmp_path: Path) -> None:
    """The check runs every few seconds, so it starts without typer, redis and settings."""
    HeartbeatFile(tmp_path / "beat").write(WELL)
    code = (
        "import sys; sys.argv[1:] = ['health']\n"
        "from service.__main__ import main\n"
        "try: main()\n"
        "finally: print(sorted({'typer', 'redis', 'pydantic', 'asyncio', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, SETTING: str(tmp_path / "beat")},
    )
    assert done.stdout.splitlines() == [f"healthy: 1 process (pid {os.getpid()})", "[]"]
