"""Providers' own SDKs through the tap, over TLS, by one URL: they get what they get directly."""

from __future__ import annotations

import json
import os
import shutil
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import certificates
from tests.client.dialects.streams import SAMPLES, WHOLE_ANSWERS, body_of
from tests.client.teeing.recorder import expected, with_id
from tests.docs.scripts import run
from tests.node.packages import add_packages
from tests.receivers import receiving
from tests.sdks.calls import CANARY
from tests.sdks.programs import run_program
from tests.sdks.test_calls import CALLS, answer, samples_for
from tests.tap.running import copying, forwarding
from tests.tap.test_copying import CountingRecorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client.teeing.recorder import Recorded

pytestmark = pytest.mark.prove

WHOLE = {
    "openai chat": "chat",
    "openai responses": "responses",
    "anthropic": "anthropic",
    "google-genai": "gemini",
    "mistralai": "chat",
}
"""Answers that are not streamed."""


@asynccontextmanager
async def sides(folder: Path, recorder: CountingRecorder) -> AsyncIterator[tuple[str, str, dict[str, str]]]:
    """Yield the URLs of a provider and of a tap in front of it, and variables that let clients trust it."""
    made = certificates.make(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    trusted = dict.fromkeys(("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), str(made.certificate))
    async with (
        receiving(answer) as server,
        copying(recorder) as pipe,
        forwarding(server.url, pipe=pipe, tls=tls) as tap,
    ):
        yield server.url, f"https://127.0.0.1:{tap.port}/up", trusted
    assert {outcome for _, outcome in tap.counts.requests} == {"passed"}


def models_for(sdk: str) -> list[str]:
    """Return the names of models, which say what the provider answers: streams, an answer and an error."""
    kinds = ("plain", "gzip")
    streams = [f"{kinds[number % 2]}.{name}" for number, name in enumerate(samples_for(sdk))]
    error = "anthropic_filter" if sdk == "anthropic" else "azure"
    return [each.replace(" ", "_") for each in (*streams, f"whole.{WHOLE[sdk]}", f"error.{error}")]


def assert_copies(streams: list[Recorded], sdk: str, models: list[str]) -> None:
    """Assert that the copies of these streams and this answer are those of their bytes."""
    assert CANARY not in repr(streams)
    bodies = [
        json.dumps(WHOLE_ANSWERS[name][1]).encode() if kind == "whole" else body_of(SAMPLES[name])
        for kind, _, name in (model.replace("_", " ").partition(".") for model in models)
        if kind != "error"
    ]
    for stream, body in zip(streams, bodies, strict=False):
        assert with_id(stream) == expected(body, path=CALLS[sdk][1])
    assert len(bodies) <= len(streams) <= len(models)  # an error is copied only if a policy is its cause


@pytest.mark.parametrize("sdk", CALLS)
async def test_python(sdk: str, tmp_path: Path) -> None:
    """Give the same events, answers and errors, and publish the copies."""
    models, recorder = models_for(sdk), CountingRecorder()
    async with sides(tmp_path, recorder) as (direct, tapped, trusted):
        tasks: list[dict[str, Any]] = [
            {"sdk": sdk, "url": url, "model": model, "mode": "plain", "async": is_async, "take": -1}
            | {"stream": not model.startswith("whole")}
            for is_async in (False, True)
            for url in (direct, tapped)
            for model in models
        ]
        calls = Path(__file__).parents[1] / "sdks" / "calls.py"
        output = await run_program(calls, json.dumps(tasks), **trusted)
    lines = [json.loads(line) for line in output.splitlines()]
    found = {
        (task["async"], task["url"], task["model"]): (line["result"], line["error"])
        for task, line in zip(tasks, lines, strict=True)
    }
    for (is_async, url, model), outcome in found.items():
        assert outcome == found[is_async, direct, model], (url, model)
        assert outcome[0] or outcome[1]
    half = len(recorder.streams) // 2
    for streams in (recorder.streams[:half], recorder.streams[half:]):
        assert_copies(streams, sdk, models)


async def test_node(tmp_path: Path) -> None:
    """Give the SDK of openai for Node the same chunks, answers and errors, and publish the copies."""
    models, recorder = models_for("openai chat"), CountingRecorder()
    add_packages(tmp_path)
    program = shutil.copy(Path(__file__).with_name("call_openai.mjs"), tmp_path)
    tmp_path.joinpath("models.json").write_text(json.dumps(models))
    async with sides(tmp_path, recorder) as (direct, tapped, trusted):
        command = (
            "sh",
            "-c",
            'node "$@" <models.json',
            "sh",
            Path(program).name,
            f"{direct}/v1",
            f"{tapped}/v1",
        )
        output = await run(*command, env={**os.environ, **trusted}, folder=tmp_path)
    directly, through = map(json.loads, output.splitlines())
    assert dict(zip(models, through, strict=True)) == dict(zip(models, directly, strict=True))
    assert all(directly)
    assert_copies(recorder.streams, "openai chat", models)
