"""Test the systemd units with systemd's own tools."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from service.cli import app
from service.settings import Settings
from tests.docs.pages import ROOT
from tests.tiers import need

if TYPE_CHECKING:
    from pathlib import Path

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
PROGRAM = "/opt/deltaloom/bin/deltaloom"
HIGHEST_EXPOSURE = 12
"""Tenths of systemd's exposure level, from 0 (safe) to 100; what the programs need of the network costs 9."""

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


def installed(unit: Path, folder: Path) -> Path:
    """Return a copy of a unit, as its first instance, with a program that this machine has."""
    copy = folder / unit.name.replace("@.", "@1.")
    copy.write_text(unit.read_text("utf-8").replace(PROGRAM, "/bin/true"), "utf-8")
    return copy


@every_unit
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    """Contain no unknown or wrong line, which systemd would ignore with a warning."""
    program = need("systemd-analyze", what="systemd-analyze", package="systemd")
    arguments = ["verify", "--man=no", str(installed(unit, tmp_path))]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@every_unit
def test_unit_has_no_more_rights_than_it_needs(unit: Path, tmp_path: Path) -> None:
    """Keep the exposure level below the limit."""
    program = need("systemd-analyze", what="systemd-analyze", package="systemd")
    options = ["--offline=true", "--no-pager", f"--threshold={HIGHEST_EXPOSURE}"]
    arguments = ["security", *options, str(installed(unit, tmp_path))]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@every_unit
def test_unit_runs_a_command_and_stops_it_in_time(unit: Path) -> None:
    """Start an existing command, not again after wrong settings, and wait for its shutdown."""
    text = unit.read_text("utf-8")
    command: Any = get_command(app)
    (started,) = re.findall(rf"^ExecStart={PROGRAM} (\w+)", text, re.MULTILINE)
    assert started in command.commands
    (stopping,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(stopping) >= Settings.model_fields["shutdown_timeout"].default + 5
    assert "\nRestartPreventExitStatus=2\n" in text
    assert not re.search(r"^Environment=.*://", text, re.MULTILINE)


def test_each_process_serves_health_and_metrics_at_its_own_address() -> None:
    """Otherwise Prometheus finds nothing to scrape, or only one process of a machine can start."""
    addresses = [
        address.replace("%i", number)
        for unit in UNITS
        for address in re.findall(r"^Environment=DELTALOOM_HTTP=(.+)$", unit.read_text("utf-8"), re.MULTILINE)
        for number in (("1", "2") if "@" in unit.name else ("",))
    ]
    assert len(addresses) == len(UNITS) + 1
    assert len({Settings(http=address).http for address in addresses}) == len(addresses)
    monitoring = (ROOT / "docs/monitoring.md").read_text("utf-8")
    assert all(f'"{address}"' in monitoring for address in addresses)
