"""Test the translators against a second reader, which was written after the providers' documentation.

Both read the recorded streams in the folders that RECORDED_DIALECTS and RECORDINGS name; without these
variables, the demo's streams.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import demo
from deltaloom.dialects import Translator
from tests.client.dialects import oracle

if TYPE_CHECKING:
    from collections.abc import Iterator


def bodies() -> Iterator[tuple[str, bytes]]:
    """Yield the names and bodies of the recorded streams."""
    for variable in ("RECORDED_DIALECTS", "RECORDINGS"):
        if folder := os.environ.get(variable):
            files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix in {".jsonl", ".sse"}]
            assert files, f"{variable}={folder}: there is no *.jsonl and no *.sse"
            yield from ((file.name, file.read_bytes()) for file in files)


def recorded_or_own() -> list[tuple[str, bytes]]:
    """Return the names and bodies of the recorded streams, or of the demo's own."""
    own = sorted((Path(demo.__file__).parent / "streams").glob("*.sse"))
    return list(bodies()) or [(file.name, file.read_bytes()) for file in own]


def cut_at_random(name: str, body: bytes) -> bytes:
    """Return the beginning of a body, the same in each run."""
    return body[: random.Random(name).randrange(1, len(body))]


def expected_of(dialect: str | None, body: bytes, *, is_cut: bool = False) -> oracle.Read:
    """Return what the oracle makes of a body that is whole or broke off."""
    messages = oracle.messages_of(oracle.before_break(body) if is_cut else body)
    if is_cut and not messages:
        return oracle.Read([], [], is_redacted=False, status="failed", reason="stream_interrupted")
    if is_cut and dialect == "bedrock.agents":  # its end is that of the stream
        messages.append({"[CUT]": True})
    return oracle.READERS[dialect or ""](messages)


def differences(name: str, body: bytes, *, is_cut: bool = False) -> list[str]:
    """Return what the oracle and the translator make of a body, if that differs."""
    translator = Translator()
    events = translator.feed(body) + translator.end("interrupted" if is_cut else "complete")
    found = oracle.read_responses(events)
    expected = expected_of(translator.dialect, body, is_cut=is_cut)
    return [
        f"{name}: {field}: {getattr(found, field)!r:.300} instead of {getattr(expected, field)!r:.300}"
        for field in oracle.Read._fields
        if not (is_cut and field == "is_redacted")  # that is known at the end of a part
        if getattr(found, field) != getattr(expected, field)
    ]


def test_recorded_streams() -> None:
    """Read what the oracle reads."""
    found = recorded_or_own()
    assert found
    assert [each for name, body in found for each in differences(name, body)] == []


def test_recorded_streams_that_break_off() -> None:
    """Read what the oracle reads of the beginnings of streams: no text is lost, none is closed."""
    found = [
        each
        for name, body in recorded_or_own()
        for each in differences(name, cut_at_random(name, body), is_cut=True)
    ]
    assert found == []
