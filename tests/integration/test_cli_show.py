"""Tests of `deltaloom show` on the output of real workers."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from deltaloom import AssembledText, StreamNames
from handlers.core.identity import StreamKey
from service.cli import knowledge
from service.keys import Keys
from service.settings import Settings
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import wait_until_settled, workers_in_process

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis


def part(kind: str, item: str, index: int, **more: Any) -> dict[str, Any]:
    """Return an event about a part."""
    return {"type": f"response.{kind}", "item_id": item, "output_index": index, "content_index": 0, **more}


STREAM = [
    {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-x"}},
    part("reasoning_text.delta", "rs_1", 0, delta="Hm"),
    part("reasoning_text.done", "rs_1", 0, text="Hm"),
    part("refusal.delta", "msg_1", 1, delta="I'm \u00e4"),
]


async def publish(redis: Redis, prefix: str, events: list[dict[str, Any]], **fields: str) -> None:
    """Publish all events in one entry."""
    entry: Any = {"event": json.dumps(events), **fields}
    await redis.xadd(StreamNames(prefix).deltas, entry)


def shown(redis_url: str, prefix: str, name: str) -> dict[str, Any]:
    """Return the JSON output of `show` for an id."""
    done = deltaloom("show", name, "--json", env=environment(redis_url, prefix))
    assert done.returncode == 0, done.stderr
    known: dict[str, Any] = json.loads(done.stdout)
    return known


async def test_finished_and_open(redis: Redis, redis_url: str, prefix: str) -> None:
    """`show` finds finished and open texts of a response by its id or the id of any of its items."""
    names = StreamNames(prefix)
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, STREAM, response_id="resp_1", tenant="acme")
        await wait_until(lambda: redis.exists(names.item("resp_1", 0)), message="a text is finished")
        known = shown(redis_url, prefix, "resp_1")
        assert known["id"] == "resp_1"
        assert known["context"] == {"tenant": "acme", "model": "gpt-x"}
        (text,) = [AssembledText.model_validate(each) for each in known["texts"]]
        assert (text.text, text.integrity) == ("Hm", "verified")
        (still_open,) = known["open"]
        assert {name: still_open[name] for name in ("kind", "item_id", "events", "text_bytes")} == {
            "kind": "refusal",
            "item_id": "msg_1",
            "events": 1,
            "text_bytes": 6,
        }
        assert shown(redis_url, prefix, "rs_1") == known
        assert shown(redis_url, prefix, "msg_1") == known
        pretty = deltaloom("show", "resp_1", env=environment(redis_url, prefix)).stdout
        assert pretty.startswith("resp_1\ngpt-x · tenant acme\n")
        assert "refusal · still open · 1 event · 6 bytes so far" in pretty
        await publish(redis, prefix, [{"type": "response.completed", "response": {}}], response_id="resp_1")
        await wait_until_settled(redis, prefix)
    assert [text["status"] for text in shown(redis_url, prefix, "resp_1")["texts"]] == ["completed"] * 2


async def test_without_a_response_id(redis: Redis, redis_url: str, prefix: str) -> None:
    """`show` finds a text without a response id by its item id."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, [part("refusal.done", "msg_9", 0, refusal="No.")])
        await wait_until_settled(redis, prefix)
    known = shown(redis_url, prefix, "msg_9")
    assert [text["text"] for text in known["texts"]] == ["No."]


async def test_when_the_record_has_expired(redis: Redis, redis_url: str, prefix: str) -> None:
    """A finished text can be looked up after the response's record or its item has expired."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, STREAM[:3], response_id="resp_1", tenant="acme")
        await wait_until_settled(redis, prefix)
    names = StreamNames(prefix)
    await redis.delete(names.name("state:response:resp_1"))
    assert shown(redis_url, prefix, "resp_1")["context"] == {"tenant": "acme", "model": "gpt-x"}
    assert shown(redis_url, prefix, "rs_1")["id"] == "resp_1"
    await redis.delete(names.item("resp_1", 0))
    for name in ("resp_1", "rs_1"):
        known = shown(redis_url, prefix, name)
        assert (known["id"], [text["text"] for text in known["texts"]]) == ("resp_1", ["Hm"])


async def test_an_item_far_back_is_found_by_the_marker(redis: Redis, redis_url: str, prefix: str) -> None:
    """A text at a high output index is found through the marker of the finished response."""
    async with workers_in_process(redis_url, prefix):
        event = part("refusal.done", "msg_9", 0, refusal="No.", output_index=700)
        completed = {"type": "response.completed", "response": {"output": []}}
        await publish(redis, prefix, [event, completed], response_id="resp_1")
        names = StreamNames(prefix)
        marker = Keys(names).marker(StreamKey("response", "resp_1"))
        await wait_until(partial(redis.exists, marker), message="the response is over")
    await redis.delete(names.name("state:response:resp_1"), names.assembled)
    assert [text["text"] for text in shown(redis_url, prefix, "resp_1")["texts"]] == ["No."]


def test_nothing_is_known(redis_url: str, prefix: str) -> None:
    """An unknown id ends in exit code 1 and one line, unlike a response without texts."""
    done = deltaloom("show", "nobody\x1b[2J", env=environment(redis_url, prefix))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nothing is known of nobody\\x1b[2J: ")
    assert len(done.stderr.splitlines()) == 1


NOT_REBUILT = "not rebuilt by these settings: {}; see DELTALOOM_HANDLERS"


async def test_kinds_that_no_enabled_handler_rebuilds(redis: Redis, redis_url: str, prefix: str) -> None:
    """`show` names the kinds whose handlers are off; who looks for an answer would see nothing and no reason.

    A worker may have other settings than the command: a kind with a text of this response is not named.
    """
    answer = part("output_text.done", "msg_1", 1, text="Yes.")

    def pretty(name: str, **settings: str) -> list[str]:
        done = deltaloom("show", name, env=environment(redis_url, prefix, **settings))
        return (done.stdout or done.stderr).splitlines()

    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, [*STREAM[:3], answer], response_id="resp_1")
        await publish(redis, prefix, [answer], response_id="resp_2")
        await wait_until_settled(redis, prefix)
    assert pretty("resp_1")[-1] == NOT_REBUILT.format("output_text")
    assert " rebuild (without output_text; see DELTALOOM_HANDLERS), or " in pretty("resp_2")[0]
    only = pretty("resp_1", DELTALOOM_HANDLERS="refusal,unknown")
    assert only[-1] == NOT_REBUILT.format("reasoning_summary, output_text"), "the reasoning is there"
    every = pretty("resp_1", DELTALOOM_HANDLERS="refusal,reasoning,output_text")
    assert not any("not rebuilt" in line for line in every)
    async with workers_in_process(redis_url, prefix, handlers="output_text"):
        await publish(redis, prefix, [answer], response_id="resp_3")
        await wait_until_settled(redis, prefix)
    assert not any("not rebuilt" in line for line in pretty("resp_3")), "another worker rebuilds them"


async def test_a_broken_package_hides_no_text(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`show` prints the texts without that line if a handler's package cannot be imported."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, STREAM[:3], response_id="resp_1")
        await wait_until_settled(redis, prefix)

    def broken(_setting: str | None) -> tuple[str, ...]:
        raise ImportError("acme")

    monkeypatch.setattr("service.handler_packages.disabled_kinds", broken)
    done = deltaloom("show", "resp_1", env=environment(redis_url, prefix))
    assert done.returncode == 0
    assert "  Hm" in done.stdout.splitlines()
    assert "not rebuilt" not in done.stdout


async def test_entry_of_another_program_is_skipped(redis: Redis, redis_url: str, prefix: str) -> None:
    """Skip what another program wrote to the output stream or an item, else `show` ends in a traceback."""
    names = StreamNames(prefix)
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, STREAM, response_id="resp_1")
        await wait_until(lambda: redis.exists(names.item("resp_1", 0)), message="a text is finished")
        foreign: Any = {"note": "x"}
        await redis.xadd(names.assembled, foreign)
        await redis.xadd(names.assembled, {b"__data__": b"{"})
        await redis.hset(names.item("resp_1", 0), "note", "not JSON")
        assert [text["text"] for text in shown(redis_url, prefix, "resp_1")["texts"]] == ["Hm"]
        assert [text["text"] for text in shown(redis_url, prefix, "rs_1")["texts"]] == ["Hm"]


UPSTREAM = "chatcmpl-9"


def shown_all(redis_url: str, prefix: str, name: str, **settings: str) -> list[dict[str, Any]]:
    """Return the JSON output of `show` for an id of several responses."""
    done = deltaloom("show", name, "--json", env=environment(redis_url, prefix, **settings))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_all_responses_with_a_providers_id(redis: Redis, redis_url: str, prefix: str) -> None:
    """Find open, finished and text-less responses by their provider's id, which may be that of several."""
    filtered = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "SAFETY"}}}
    of_provider = {"upstream_response_id": UPSTREAM}
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, STREAM[:3], response_id="resp_1", **of_provider)
        await publish(redis, prefix, STREAM[:3], response_id="other", upstream_response_id=f"{UPSTREAM}0")
        await publish(redis, prefix, [filtered], response_id="resp_2", provider="gcp.gemini", **of_provider)
        await publish(redis, prefix, STREAM[3:], response_id="resp_3", **of_provider)
        await wait_until(partial(redis.exists, StreamNames(prefix).item("resp_1", 0)), message="a text")
        await wait_until(lambda: redis.xlen(StreamNames(prefix).alerts), message="an alert")
        await wait_until_settled(redis, prefix)
        known = {each["id"]: each for each in shown_all(redis_url, prefix, UPSTREAM)}
    assert set(known) == {"resp_1", "resp_2", "resp_3"}
    assert [text["text"] for text in known["resp_1"]["texts"]] == ["Hm"]
    assert [alert["reason"] for alert in known["resp_2"]["alerts"]] == ["SAFETY"]
    assert known["resp_2"]["context"] == {"provider": "gcp.gemini", **of_provider}
    assert [part["kind"] for part in known["resp_3"]["open"]] == ["refusal"]
    done = deltaloom("show", UPSTREAM, env=environment(redis_url, prefix))
    assert done.stderr == "3 responses have this id of their provider\n"
    assert "warning · response filtered · incomplete · SAFETY · safety" in done.stdout
    assert shown(redis_url, prefix, "resp_2")["alerts"] == known["resp_2"]["alerts"]


async def test_an_old_text_is_shown_by_its_providers_id(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show the text that the search found, though its keys have expired and newer texts followed."""
    async with workers_in_process(redis_url, prefix):
        for name in ("resp_old", "resp_new"):
            fields = {"response_id": name, "upstream_response_id": f"gen-{name}"}
            await publish(redis, prefix, STREAM[:3], **fields)
        await wait_until_settled(redis, prefix)
    names = StreamNames(prefix)
    await redis.delete(names.name("state:response:resp_old"), names.item("resp_old", 0))
    monkeypatch.setattr(knowledge, "TEXTS_LOOKED_THROUGH", 1)
    settings = Settings(prefix=prefix, redis_url=redis_url)
    (known,) = await knowledge.known_in(settings.names, redis, settings, "gen-resp_old")
    assert (known.id, [text.text for text in known.texts]) == ("resp_old", ["Hm"])
    assert known.context["upstream_response_id"] == "gen-resp_old"


async def test_a_providers_id_in_several_partitions(redis: Redis, redis_url: str, prefix: str) -> None:
    """Search all partitions, and find an id that JSON writes with escapes."""
    odd = 'gen-"1"\u00e9'
    settings = Settings(prefix=prefix, partitions=2)
    async with workers_in_process(redis_url, prefix, partitions=2):
        for name in ("resp_1", "resp_42", "resp_7"):
            entry: Any = {"event": json.dumps(STREAM[:3]), "response_id": name, "upstream_response_id": odd}
            await redis.xadd(settings.names.of(name).deltas, entry)

        async def are_found() -> bool:
            done = deltaloom("show", odd, "--json", env=environment(redis_url, prefix, **TWO))
            return len(done.stdout.splitlines()) == 3

        await wait_until(are_found)
    assert {known["id"] for known in shown_all(redis_url, prefix, odd, **TWO)} == {
        "resp_1",
        "resp_42",
        "resp_7",
    }


TWO = {"DELTALOOM_PARTITIONS": "2"}
