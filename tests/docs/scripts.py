"""Run an example as a reader would: in a process, with the server in REDIS_URL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT
from tests.node.packages import add_packages
from tests.tiers import lack, need

EXAMPLES = ROOT / "examples"
PYTHON = (sys.executable, "-W", "error")


_GO_PATH: Final = Path("/usr/share/gocode")
"""Folder of Debian's packages for Go."""


async def build_go(name: str, folder: Path) -> Path:
    """Build an example in Go, and return its program; skip the test without Go or redigo."""
    go = need("go", what="Go", package="golang-go")
    if not (_GO_PATH / "src/github.com/gomodule/redigo").exists():
        lack("redigo", "golang-github-gomodule-redigo-dev")
    env = os.environ | {"GO111MODULE": "off", "GOPATH": str(_GO_PATH)}
    await run(go, "build", "-o", folder / "program", EXAMPLES / name, env=env)
    return folder / "program"


def environment(redis_url: str, prefix: str, **more: str) -> dict[str, str]:
    """Return the environment of an example."""
    return {**os.environ, "REDIS_URL": redis_url, "DELTALOOM_PREFIX": prefix, **more}


async def run(*command: str | Path, env: dict[str, str], folder: Path = ROOT) -> str:
    """Run a program to its end and return its output; AssertionError if it failed."""
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=folder, stdout=PIPE, stderr=STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def run_example(name: str, redis_url: str, prefix: str, folder: Path) -> str:
    """Run one of the publishing examples; `folder` is for its dependencies."""
    env = environment(redis_url, prefix)
    if name.endswith(".mjs"):
        shutil.copy(EXAMPLES / name, folder)
        add_packages(folder)
        return await run("node", name, env=env, folder=folder)
    if name.endswith(".go"):
        return await run(await build_go(name, folder), env=env)
    if name.endswith(".sh"):
        if shutil.which("redis-cli") is None:
            _stand_in(folder / "redis-cli")
            env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
        return await run("sh", EXAMPLES / name, env=env)
    return await run(*PYTHON, EXAMPLES / name, env=env)


def _stand_in(path: Path) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.docs.redis_cli "$@"\n', "ascii")
    path.chmod(0o755)


def events_in_javascript(source: str) -> list[dict[str, Any]]:
    """Return the events in a script's `const events = […]`, with `...part` expanded."""
    part = _literal(source, "part", "{", "}").strip("{} ")
    events = _literal(source, "events", "[", "]").replace("...part", part)
    quoted = re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', events)
    parsed: list[dict[str, Any]] = json.loads(re.sub(r",(\s*[\]}])", r"\1", quoted))
    return parsed


def _literal(source: str, name: str, opening: str, closing: str) -> str:
    found = re.search(rf"const {name} = (\{opening}.*?\{closing});\n", source, re.DOTALL)
    assert found, f"there is no `const {name} = {opening}…{closing};`"
    return found[1]
