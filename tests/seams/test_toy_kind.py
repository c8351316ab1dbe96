"""Install a handler with a kind of its own, and follow it through a worker, its outputs and the commands."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import StreamNames
from tests.docs.scripts import run
from tests.service.cli.command import environment
from tests.workers import alerts, counts, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

TOY = Path(__file__).parent / "toys" / "apologies.py"
PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
WORDS = ("I am", " so", " sorry.")


def events(reason: str, model: str) -> list[dict[str, Any]]:
    """Return the events of a response with an apology that ends for this reason."""
    deltas = [
        {"type": "toy.apology.delta", "sequence_number": number, "delta": word, **PART}
        for number, word in enumerate(WORDS)
    ]
    end = {"model": model, "incomplete_details": {"reason": reason}}
    return [
        *deltas,
        {"type": "toy.apology.done", "sequence_number": 3, "text": "".join(WORDS), **PART},
        {"type": "response.incomplete", "response": end},
    ]


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the one file of the handler, with the metadata that `pip install` would write."""
    shutil.copy(TOY, tmp_path)
    metadata = tmp_path / "apologies-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: apologies\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[deltaloom.handlers]\napologies = apologies:handler\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def deltaloom(*arguments: str) -> tuple[str, ...]:
    """Return the command line of `deltaloom`, in a process of its own that finds the installed handler."""
    return (sys.executable, "-m", "service", *arguments)


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "other"])
async def test_a_handler_of_one_file_brings_a_kind_of_text(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, *, refuses: bool
) -> None:
    """Assemble, write, alert, count and show texts of a kind that deltaloom does not know."""
    if not refuses:
        toy = tmp_path / TOY.name
        toy.write_text(toy.read_text("utf-8").replace("counts_as_refused=True, ", ""), "utf-8")
    async with running_workers(redis_url, prefix, kind_retention="apology=3600") as (worker,):
        for response_id, reason, model in (
            ("resp_1", "refusal", "m1"),
            ("resp_2", "max_output_tokens", "m2"),
        ):
            for event in events(reason, model):
                entry: Any = {"event": json.dumps(event), "response_id": response_id}
                await redis.xadd(StreamNames(prefix).deltas, entry)
        await wait_until_settled(redis, prefix)
        assert worker.has_logged("apology opened")
    for text in await texts(redis, prefix):
        assert (text.kind, text.text, text.integrity) == ("apology", "I am so sorry.", "verified")
    raised = [(alert.response_id, alert.type) for alert in await alerts(redis, prefix)]
    by_the_end = [] if refuses else [("resp_1", "deltaloom.response.refused")]
    apologies = [("resp_1", "toy.apology.opened"), ("resp_2", "toy.apology.opened")]
    assert sorted(raised) == sorted(apologies + by_the_end)
    assert await counts(redis, prefix) == {}
    counted = await rates(redis, prefix)
    assert (counted["responses:model:m2"], counted.get("refused:model:m2", 0)) == (1, int(refuses))
    env = environment(redis_url, prefix)
    assert " · apology · completed · " in await run(*deltaloom("show", "resp_1"), env=env)
    tail = deltaloom("tail", "assembled", "--from-start", "--count", "2")
    assert (await run(*tail, env=env)).count(" · apology · completed · ") == 2


async def rates(redis: Redis, prefix: str) -> Mapping[str, int]:
    """Return the counts of the responses that are over, from one of the buckets that have them."""
    keys = [key async for key in redis.scan_iter(match=f"{prefix}:rates:*", count=1000)]
    found: Any = await redis.hgetall(keys[0])
    return {name.decode(): int(value) for name, value in found.items()}


async def test_commands_know_the_kind(tmp_path: Path) -> None:
    """Show the kind in the style of its row, and accept it in `alerts.toml`."""
    code = "from service.cli.output import kind_name; print(kind_name('apology').style)"
    assert await run(sys.executable, "-c", code, env=dict(os.environ)) == "bold magenta\n"
    file = tmp_path / "alerts.toml"
    route = '[[routes]]\nmatch = { kind = "apology" }\nto = "log"\n'
    file.write_text(f'[destinations.log]\ntype = "log"\n{route}')
    env = {**os.environ, "DELTALOOM_ALERTS_FILE": str(file)}
    assert "1 destination, 1 route" in await run(*deltaloom("alerts", "check"), env=env)


async def test_a_broken_package_hides_no_text(tmp_path: Path) -> None:
    """Show the name of an unknown kind without a style if a handler's package cannot be imported."""
    (tmp_path / "apologies.py").write_text("1 / 0\n")
    code = "from service.cli.output import kind_name; print(repr(kind_name('apology')))"
    assert await run(sys.executable, "-c", code, env=dict(os.environ)) == "<text 'apology' [] ''>\n"
