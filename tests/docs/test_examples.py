"""Test the examples against a real server and a real worker."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tomllib
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import deltaloom
from deltaloom import AssembledText, StreamNames
from deltaloom.events import RefusalDelta, RefusalDone
from tests.docs.pages import ROOT
from tests.docs.scripts import (
    EXAMPLES,
    PYTHON,
    build_go,
    environment,
    events_in_javascript,
    run,
    run_example,
)
from tests.node.packages import add_packages
from tests.tiers import need
from tests.waiting import wait_until
from tests.workers import (
    alerts,
    counts,
    dead_letters,
    running_workers,
    texts,
    wait_until_settled,
    workers_in_process,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from _pytest.mark import ParameterSet
    from pydantic import BaseModel
    from redis.asyncio import Redis

RECIPES = EXAMPLES / "recipes"
OTHER = (".go", ".mjs", "subscribe.sh")
"""Ends of the names of examples that need Go, Node or jq."""

TEXT = "I'm sorry, but no."
PUBLISHERS = {
    "publish_python.py": "resp_python",
    "publish_safely.py": "resp_publisher",
    "publish_faststream.py": "resp_faststream",
    "publish.sh": "resp_shell",
    "publish.mjs": "resp_node",
    "publish.go": "resp_go",
}
SUBSCRIBERS_OF_OLD = {
    "subscribe_redis.py": ("assembled", f"resp_python refusal completed verified {TEXT}"),
    "subscribe.mjs": ("assembled", f"resp_python refusal completed verified {TEXT}"),
    "subscribe.go": ("assembled", f"resp_python refusal completed verified {TEXT}"),
    "subscribe.sh": ("alerts", f"resp_python deltaloom.refusal.finished {TEXT}"),
}
"""Stream and last line of each subscriber that begins with the oldest entry."""


def in_tiers(names: Iterable[str]) -> list[ParameterSet | str]:
    """Return the names of examples, of which only `make prove` runs those in other languages."""
    return [pytest.param(name, marks=pytest.mark.prove) if name.endswith(OTHER) else name for name in names]


@pytest.mark.parametrize("name", in_tiers(PUBLISHERS))
async def test_published_events_become_a_text_and_two_alerts(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, name: str
) -> None:
    """Publish events that become a text and two alerts."""
    async with workers_in_process(redis_url, prefix):
        await run_example(name, redis_url, prefix, tmp_path)
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.kind, text.integrity) == (TEXT, "refusal", "verified")
    assert (text.response_id, text.item_id, text.delta_count) == (PUBLISHERS[name], "msg_1", 2)
    assert [alert.type for alert in await alerts(redis, prefix)] == [
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    ]
    assert await dead_letters(redis, prefix) == []
    assert await counts(redis, prefix) == {}


async def test_the_node_and_python_examples_send_equal_events(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Compare the events in the Node example's source with the Python example's, also without Node."""
    await run_example("publish_python.py", redis_url, prefix, tmp_path)
    entries: Any = await redis.xrange(StreamNames(prefix).deltas)
    source = (EXAMPLES / "publish.mjs").read_text("utf-8")
    assert events_in_javascript(source) == [json.loads(fields[b"event"]) for _, fields in entries]
    call = re.search(
        r'xAdd\(stream, "\*", \{ event: JSON\.stringify\(event\), (\w+): "resp_node" \}\)', source
    )
    assert call
    assert all(fields.keys() == {b"event", call[1].encode()} for _, fields in entries)
    assert '`${process.env.DELTALOOM_PREFIX ?? "deltaloom"}:deltas`' in source


@pytest.mark.parametrize(
    ("name", "models"),
    [("publish.go", [RefusalDelta, RefusalDone]), ("subscribe.go", [AssembledText])],
)
def test_fields_in_go_are_those_of_the_models(name: str, models: list[type[BaseModel]]) -> None:
    """Name only fields of the models in Go's types, also without Go."""
    named = set(re.findall(r'`json:"(\w+)', (EXAMPLES / name).read_text("utf-8")))
    assert named
    assert named <= {field for model in models for field in model.model_fields}


def test_every_example_is_run() -> None:
    """Include each example in the tests."""
    known = {
        *PUBLISHERS,
        *SUBSCRIBERS_OF_OLD,
        "receive_webhook.py",
        "subscribe_faststream.py",
        "translate.py",
    }
    scripts = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".go", ".mjs", ".py", ".sh"}}
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert (scripts, folders) == (known, {"handler_package", "recipes"})


@pytest.mark.parametrize("path", sorted(RECIPES.iterdir()), ids=lambda path: path.name)
def test_recipes_use_what_the_library_has(path: Path) -> None:
    """Compile each recipe, and name only what the library exports. `make prove` runs them."""
    tree = ast.parse(path.read_text("utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "deltaloom"
    }
    copies = used - {"Publisher"}
    assert copies
    assert copies <= set(deltaloom.__all__)


@asynccontextmanager
async def subscriber(
    name: str, redis_url: str, prefix: str, folder: Path
) -> AsyncIterator[Callable[[str], bool]]:
    """Run a subscriber, and yield a function that returns whether it has printed a line with this prefix."""
    output = folder / "output"
    command: tuple[str | Path, ...] = (*PYTHON, EXAMPLES / name)
    if name.endswith(".mjs"):
        add_packages(folder)
        command = ("node", shutil.copy(EXAMPLES / name, folder))
    elif name.endswith(".go"):
        command = (await build_go(name, folder),)
    elif name.endswith(".sh"):
        need("jq", what="jq", package="jq")
        command = ("sh", EXAMPLES / name)
    with output.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(redis_url, prefix), stdout=stdout
        )
    try:
        yield lambda line: any(printed.startswith(line) for printed in output.read_text("utf-8").splitlines())
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


async def groups(redis: Redis, stream: str) -> set[bytes]:
    """Return the names of a stream's consumer groups, or an empty set if the stream does not exist."""
    if not await redis.exists(stream):
        return set()
    return {group["name"] for group in await redis.xinfo_groups(stream)}


async def test_a_faststream_subscriber_gets_texts_and_alerts(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Receive texts and alerts with the FastStream example."""
    names = StreamNames(prefix)

    async def listening() -> bool:
        return {b"archive"} == await groups(redis, names.assembled) and {b"on-call"} == await groups(
            redis, names.alerts
        )

    async with (
        workers_in_process(redis_url, prefix),
        subscriber("subscribe_faststream.py", redis_url, prefix, tmp_path) as printed,
    ):
        await wait_until(listening, 30, message="the subscriber's groups are there")
        await run_example("publish_python.py", redis_url, prefix, tmp_path)
        for line in (
            "resp_python deltaloom.refusal.opened warning I'm sorry,",
            f"resp_python deltaloom.refusal.finished warning {TEXT}",
            f"resp_python refusal completed verified {TEXT}",
        ):
            await wait_until(partial(printed, line), message=f"it prints {line!r}")


@pytest.mark.parametrize("name", in_tiers(SUBSCRIBERS_OF_OLD))
async def test_a_subscriber_begins_with_the_oldest_entry(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, name: str
) -> None:
    """Read what was written before the subscriber's first start, and acknowledge it."""
    suffix, line = SUBSCRIBERS_OF_OLD[name]
    async with workers_in_process(redis_url, prefix):
        await run_example("publish_python.py", redis_url, prefix, tmp_path)
        await wait_until_settled(redis, prefix)
    stream = StreamNames(prefix).name(suffix)

    async def acknowledged() -> bool:
        (group,) = await redis.xinfo_groups(stream)
        return bool(group["lag"] == 0 and group["pending"] == 0)

    async with subscriber(name, redis_url, prefix, tmp_path) as printed:
        await wait_until(lambda: printed(line), 30, message=f"it prints {line!r}")
        await wait_until(acknowledged, message="it acknowledges what it has read")


def test_a_package_with_a_handler_fits_this_version() -> None:
    """Require the versions of the library that the worker requires. Otherwise pip refuses the package."""
    example, worker = (
        set(tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"])
        for folder in (EXAMPLES / "handler_package", ROOT)
    )
    assert example <= worker


async def test_a_handler_of_another_package_handles_its_events(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Install the example package's handler and process its events."""
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    await run(sys.executable, *install, "--target", tmp_path, EXAMPLES / "handler_package", env=env)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    part = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
    async with running_workers(redis_url, prefix) as (worker,):
        for event in (
            {"type": "acme.thought.delta", "sequence_number": 1, "thought": "First", **part},
            {"type": "acme.thought.delta", "sequence_number": 2, "thought": " think.", **part},
            {"type": "acme.thought.done", "sequence_number": 3, "thought": "First think.", **part},
        ):
            await redis.xadd(
                StreamNames(prefix).deltas, {"event": json.dumps(event), "response_id": "resp_acme"}
            )
        await wait_until_settled(redis, prefix)
        (started,) = [line for line in worker.lines() if line["event"] == "worker started"]
        assert "acme_thoughts" in started["handlers"]
    (text,) = await texts(redis, prefix)
    assert (text.kind, text.text, text.integrity) == ("reasoning", "First think.", "verified")
    assert await counts(redis, prefix) == {}
