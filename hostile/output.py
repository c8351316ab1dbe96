"""Checks of logs and of the output of commands: no errors, and no characters that control a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hostile import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    Violate = Callable[[str, str], None]

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u2065\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
"""Characters of other categories that are not displayed."""
_SUSPECT = re.compile(r"[^\x20-\x7e\n]")
_COMPLAINTS = ("redis unavailable", "Traceback", "batch failed", "periodic task failed")
_AT_MOST = 200
"""Maximum number of entries of a stream to print."""
_COMMAND_WITHIN = 30.0
_SHOWN = 160


def hidden_in(line: str) -> set[str]:
    """Return the invisible characters of a line."""
    return {
        each
        for each in set(_SUSPECT.findall(line))
        if unicodedata.category(each) in _HIDDEN or _IGNORABLE.match(each)
    }


def judge_logs(folder: Path, violate: Violate) -> int:
    """Check all logs in a folder, and return their bytes."""
    size = 0
    for path in sorted((*folder.glob("worker*.log"), *folder.glob("relay*.log"))):
        size += path.stat().st_size
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            judge_lines(path.name, lines, violate)
    return size


def judge_lines(
    name: str, lines: Iterable[str], violate: Violate, *, longest: float = limits.LOG_LINE
) -> None:
    """Check each line of a log named `name`, including its length in characters."""
    for line in lines:
        hidden = hidden_in(line)
        if hidden:
            codes = ", ".join(f"U+{ord(each):04X}" for each in sorted(hidden))
            violate("raw characters", f"{name}: {codes} in {line[:_SHOWN]!a}")
        if len(line) > longest:
            violate("long line", f"{name}: {len(line):,} characters; at most {longest:,}")
        complaint = next((complaint for complaint in _COMPLAINTS if complaint in line), None)
        if complaint is not None:
            violate("complaint", f"{name}: {_about(line, complaint)}")
        elif '"until"' in line and line.startswith("{"):
            _judge_pause(name, json.loads(line), violate)


def _about(line: str, complaint: str) -> str:
    """Return the error of a line, or the last line of its traceback."""
    try:
        logged = json.loads(line)
    except ValueError:
        return ascii(line.strip()[:_SHOWN])
    last = str(logged.get("exception") or logged.get("error") or complaint).strip().rpartition("\n")[2]
    return ascii(f"{logged.get('event')}: {last}"[:_SHOWN])


def _judge_pause(name: str, logged: Mapping[str, Any], violate: Violate) -> None:
    """Check that a pause requested by a destination does not exceed the relay's maximum."""
    seconds = (
        datetime.fromisoformat(logged["until"]) - datetime.fromisoformat(logged["timestamp"])
    ).total_seconds()
    if seconds > limits.PAUSE:
        violate("not tried again", f"{name}: {logged.get('destination')} is paused for {seconds:.1f} s")


def _commands(lengths: Mapping[str, int]) -> Iterable[tuple[str, ...]]:
    yield ("check",)
    yield ("dead-letters", "list")
    for stream, length in lengths.items():
        if length:  # an empty stream would make it wait
            tail = ("tail", stream, "--from-start", "--count", str(min(length, _AT_MOST)))
            yield tail if stream == "assembled" else (*tail, "--json")


async def judge_commands(
    environment: Mapping[str, str], lengths: Mapping[str, int], violate: Violate
) -> None:
    """Run the commands that print streams, and check their output. `lengths` are those of the streams."""
    await asyncio.gather(
        *(_judge_command(arguments, environment, violate) for arguments in _commands(lengths))
    )


async def _judge_command(
    arguments: tuple[str, ...], environment: Mapping[str, str], violate: Violate
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *arguments),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    command = f"deltaloom {' '.join(arguments)}"
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), _COMMAND_WITHIN)
    except TimeoutError:
        violate("slow stop", f"{command} takes more than {_COMMAND_WITHIN:g} s")
        return
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = printed.decode("utf-8", "surrogateescape").split("\n")
    judge_lines(command, lines, violate, longest=float("inf"))  # the commands print whole entries
