"""Test with Node what the library has for other languages: the AsyncAPI document, and the schemas' types."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from deltaloom import StreamNames
from tests.client.asyncapi import FILE
from tests.client.schemas import FOLDER
from tests.docs.scripts import EXAMPLES, run
from tests.node.packages import add_packages

pytestmark = pytest.mark.prove

_ERROR, _WARNING = 0, 1

WRONG = """\
/** @type {import("./types/Event.js").Event} */
export const event = { type: "response.refusal.delta", output_index: 0, content_index: 0 };
/** @type {(text: import("./types/AssembledText.js").AssembledText) => number} */
export const length = (text) => text.txt.length;
"""
"""A program with a delta without its text, and a field that a text does not have."""


async def test_the_asyncapi_document_is_valid(tmp_path: Path) -> None:
    """Pass AsyncAPI's own parser, which refuses a wrong document, and name each stream."""
    add_packages(tmp_path)
    shutil.copy(Path(__file__).with_name("validate.mjs"), tmp_path)
    text = FILE.read_text("utf-8")
    tmp_path.joinpath("right.json").write_text(text, "utf-8")
    tmp_path.joinpath("wrong.json").write_text(text.replace('"#/channels/alerts"', '"#/channels/x"'), "utf-8")
    printed = await run(
        "node", "validate.mjs", "right.json", "wrong.json", env={**os.environ}, folder=tmp_path
    )
    right, wrong = map(json.loads, printed.splitlines())
    assert [each for each in right["findings"] if each["severity"] <= _WARNING] == []
    assert [each for each in wrong["findings"] if each["severity"] == _ERROR]
    names = StreamNames("{prefix}")
    assert right["streams"] == [
        *(names.deltas, names.assembled, names.alerts, names.deliveries),
        *(names.dead_letters, names.undelivered),
    ]


async def run_tool(name: str, *arguments: str | Path, folder: Path) -> str:
    """Run a command of the packages, and return its output; AssertionError if it failed."""
    return await run(folder / "node_modules" / ".bin" / name, *arguments, env={**os.environ}, folder=folder)


async def write_types(folder: Path) -> None:
    """Write types for TypeScript, as docs/clients.md says."""
    options = ("--no-additionalProperties", "--input", FOLDER, "--output", "types")
    await run_tool("json2ts", *options, folder=folder)


async def check_types(*programs: str, folder: Path) -> str:
    """Check programs in JavaScript with the TypeScript compiler; AssertionError with its errors."""
    options = ("--noEmit", "--checkJs", "--strict", "--types", "node", "--module", "nodenext")
    return await run_tool("tsc", *options, "--target", "es2022", *programs, folder=folder)


async def test_types_for_typescript_fit_the_examples(tmp_path: Path) -> None:
    """Generate types from all schemas, with which the examples compile and wrong programs do not."""
    add_packages(tmp_path)
    await write_types(tmp_path)
    generated = {path.name for path in (tmp_path / "types").iterdir()}
    assert generated == {f"{path.stem}.d.ts" for path in FOLDER.glob("*.json")}
    for name in ("publish.mjs", "subscribe.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    await check_types("publish.mjs", "subscribe.mjs", folder=tmp_path)
    tmp_path.joinpath("wrong.mjs").write_text(WRONG, "utf-8")
    with pytest.raises(AssertionError) as errors:
        await check_types("wrong.mjs", folder=tmp_path)
    assert "'delta' is missing" in str(errors.value)
    assert "'txt' does not exist" in str(errors.value)
