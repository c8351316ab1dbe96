"""Run programs in the virtual environment of the SDKs."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT
from tests.tiers import need

_PYTHON: Final = Path(sys.executable).parents[1] / "sdks" / "bin" / "python"


async def run_program(path: Path, stdin: str = "", **environment: str) -> str:
    """Run a program to its end and return its output; AssertionError if it failed.

    The variable DELTALOOM_TEST_SDKS may name the Python of another environment with the SDKs.
    """
    python = need(str(_PYTHON), what="the SDKs", package="none: make prove", variable="DELTALOOM_TEST_SDKS")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "client"), **environment}
    process = await asyncio.create_subprocess_exec(
        python, path, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), 100)
    assert process.returncode == 0, errors.decode()
    return output.decode()
