"""Add a destination to a copy of the program, and deliver an alert with it."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from pathlib import Path

from tests.docs.scripts import run

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toys" / "pigeon.py"
DESTINATIONS = Path("alerts/destinations")


async def test_a_destination_is_one_file_and_its_name_in_the_list(tmp_path: Path) -> None:
    """Write the destination's file, add its name to the list, and use it in `alerts.toml` at once."""
    program = tmp_path / "service"
    shutil.copytree(ROOT / "service", program, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOY, program / DESTINATIONS)
    registry = program / DESTINATIONS / "registry.py"
    listed = registry.read_text("utf-8").replace('    "command",\n', '    "command",\n    "pigeon",\n')
    registry.write_text(listed, "utf-8")
    assert changed(program) == {f"{DESTINATIONS}/pigeon.py", f"{DESTINATIONS}/registry.py"}

    alerts = tmp_path / "alerts.toml"
    alerts.write_text(f'[destinations.home]\ntype = "pigeon"\nloft = "{tmp_path}/loft"\n', "utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "DELTALOOM_ALERTS_FILE": str(alerts)}
    command = (sys.executable, "-m", "service", "alerts")
    assert "1 destination" in await run(*command, "check", env=env, folder=tmp_path)
    assert "home took it: coo" in await run(*command, "test", "home", env=env, folder=tmp_path)
    assert (tmp_path / "loft").read_text("utf-8").count("\n") == 1


def changed(program: Path) -> set[str]:
    """Return the files in a copy of `service/` that are new, or differ from the original."""
    return {
        str(path.relative_to(program))
        for path in program.rglob("*.*")
        if path.is_file()
        and not (
            (original := ROOT / "service" / path.relative_to(program)).exists()
            and filecmp.cmp(path, original, shallow=False)
        )
    }
