"""Tests of the output rules of docs/contract.md, one by one, on a real server."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import pytest

from deltaloom import limits
from handlers import BUILT_IN
from handlers.core.effects import CONTEXT_NAMES
from handlers.core.identity import StreamKey
from service.keys import Keys
from tests.bench import COMPLETED, KEEPALIVE, Bench, delta, done
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom import AssembledText, ModerationAlert

CANCELLED = {"type": "response.cancelled"}
LOSS = {"type": "deltaloom.producer.loss", "dropped": 3}
FALLBACK = {"type": "deltaloom.response.fallback", "from_model": "a", "to_model": "b", "trigger": "refusal"}
REDACTED = {"type": "deltaloom.part.redacted", "output_index": 0, "content_index": 0, "kind": "reasoning"}
REFUSED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "refusal"}}}


def ended_with_copy(text: str) -> dict[str, Any]:
    """Return the end of a response with a final copy that has this refusal."""
    item = {"type": "message", "id": "item_1", "content": [{"type": "refusal", "refusal": text}]}
    return {"type": "response.completed", "response": {"output": [item]}}


FINAL = ended_with_copy("never")


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


async def written(bench: Bench) -> list[AssembledText]:
    """Process all entries, sweep once, and return the texts that came out."""
    await bench.consumer().work()
    await bench.consumer().worker.sweep()
    return await texts(bench.redis, bench.prefix)


async def raised(bench: Bench, kind: str) -> list[ModerationAlert]:
    """Return the alerts of one type."""
    found = await alerts(bench.redis, bench.prefix)
    return [alert for alert in found if alert.type == f"deltaloom.{kind}"]


def with_checksum(text: str, kind: str = "refusal", **fields: Any) -> dict[str, Any]:
    """Return a `.done` event with a checksum in place of its text."""
    event = done(text, kind)
    del event["refusal" if kind == "refusal" else "text"]
    data = text.encode()
    return {**event, "text_sha256": sha256(data).hexdigest(), "text_bytes": len(data), **fields}


def ended(status: str, reason: str | None, **details: str) -> dict[str, Any]:
    """Return the end of a response with a reason."""
    if status == "failed":
        return {"type": "response.failed", "response": {"error": {"code": reason, **details}}}
    return {"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason, **details}}}


# -------------------------------------------------------------------------------- context


async def test_context_is_copied_to_every_output(bench: Bench) -> None:
    """Texts and alerts carry the context, so that its request and provider can be found."""
    context = {name: f"the {name}" for name in CONTEXT_NAMES}
    await bench.publish(delta(1, "no", "refusal"), done("no", "refusal"), **context)
    await bench.publish(ended("failed", "cyber_policy"), response_id="resp_2", **context)
    (text,) = await written(bench)
    messages = [text, *await alerts(bench.redis, bench.prefix)]
    assert len(messages) == 4
    for message in messages:
        assert {name: getattr(message, name) for name in CONTEXT_NAMES} == context
        assert (message.schema_version, message.source, message.context_truncated) == (1, bench.prefix, ())


async def test_dead_letters_say_schema_and_source(bench: Bench) -> None:
    """A dead letter names its schema version and source, the prefix that the letter belongs to."""
    await bench.publish("{")
    await bench.consumer().work()
    ((_, fields),) = await entries(bench.redis, bench.names.dead_letters)
    assert (fields[b"schema"], fields[b"source"]) == (b"1", bench.prefix.encode())


@pytest.mark.parametrize("name", CONTEXT_NAMES)
async def test_context_at_its_limit_and_beyond(bench: Bench, name: str) -> None:
    """A value beyond its limit is left out, named in `context_truncated` and counted; the event is used."""
    most = limits.CONTEXT[name]
    await bench.publish(delta(1, "no", "refusal"), done("no", "refusal"), **{name: "x" * most})
    await bench.publish(
        delta(1, "no", "refusal"), done("no", "refusal"), response_id="resp_2", **{name: "x" * (most + 1)}
    )
    fits, beyond = await written(bench)
    assert (getattr(fits, name), fits.context_truncated) == ("x" * most, ())
    assert (getattr(beyond, name), beyond.context_truncated) == (None, (name,))
    assert (await counts(bench.redis, bench.prefix))[f"truncated:{name}"] == 2


async def test_response_id_beyond_its_limit_is_a_dead_letter_that_names_it(bench: Bench) -> None:
    """A response id at the limit works, and a longer one makes a dead letter that names the field."""
    await bench.publish(done("no", "refusal"), response_id="r" * limits.ID)
    await bench.publish(done("no", "refusal"), response_id="r" * (limits.ID + 1))
    (text,) = await written(bench)
    (letter,) = await dead_letters(bench.redis, bench.prefix)
    assert text.response_id == "r" * limits.ID
    assert letter.error == "the field response_id has 1025 characters; at most 1024"


@pytest.mark.parametrize("length", [limits.ID, limits.ID + 1])
async def test_item_id_that_is_the_only_identity(bench: Bench, length: int) -> None:
    """An item id that identifies the text is never shortened: a longer one makes a dead letter."""
    event = {**done("no", "refusal"), "item_id": "i" * length}
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(event)})
    found = await written(bench)
    letters = await dead_letters(bench.redis, bench.prefix)
    if length == limits.ID:
        assert ([text.item_id for text in found], letters) == (["i" * length], [])
    else:
        assert found == []
        assert letters[0].error.startswith("item_id has 1025 characters, at most 1024")


@pytest.mark.parametrize("fast", [True, False])
async def test_item_id_beside_a_response_id_is_left_out(bench: Bench, *, fast: bool) -> None:
    """An item id beyond the limit is left out if the response id identifies the text."""
    long = {"item_id": "i" * (limits.ID + 1)}
    first = {**delta(1, "no", "refusal"), **long} if fast else {**done("no", "refusal"), **long}
    await bench.publish(first, {**done("no", "refusal"), **long})
    (text,) = await written(bench)
    assert (text.text, text.item_id, text.context_truncated) == ("no", None, ("item_id",))
    assert await dead_letters(bench.redis, bench.prefix) == []


async def test_learned_values_have_the_same_limits(bench: Bench) -> None:
    """Values learned from `response.created` have the same limits as those of the producer."""
    created = {"model": "m" * 257, "safety_identifier": "s" * 256}
    await bench.publish({"type": "response.created", "response": created}, done("no", "refusal"))
    (text,) = await written(bench)
    assert (text.model, text.safety_identifier) == (None, "s" * 256)
    assert text.context_truncated == ("model",)


async def test_reasons_have_limits(bench: Bench) -> None:
    """Reasons and explanations beyond their limits are left out, and named in `context_truncated`."""
    end = ended("failed", "c" * 257, category="k" * 257, explanation="e" * 4097, reason_class="r" * 257)
    await bench.publish(delta(1, "no", "refusal"), end)
    (text,) = await written(bench)
    assert (text.status, text.reason, text.provider_category, text.provider_explanation) == (
        "failed",
        None,
        None,
        None,
    )
    assert text.reason_class == "unknown"
    assert text.context_truncated == ("provider_category", "provider_explanation", "reason", "reason_class")


# ----------------------------------------------------------------- statuses and integrity


async def test_a_cancelled_response_ends_at_once(bench: Bench) -> None:
    """A cancelled response finishes its open texts at once, without the idle timeout."""
    await bench.publish(delta(1, "I ", "refusal"), delta(2, "ca", "refusal"), CANCELLED)
    (text,) = await written(bench)
    assert (text.text, text.status, text.reason) == ("I ca", "cancelled", "cancelled")
    assert (text.reason_class, text.integrity, text.integrity_source) == ("cancelled", "unverified", None)
    (finished,) = await raised(bench, "refusal.finished")
    assert finished.status == "cancelled"


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_a_client_that_left_cancels_the_response(bench: Bench, status: str) -> None:
    """The reason `client_disconnected` makes a response cancelled, even without `response.cancelled`."""
    await bench.publish(delta(1, "I ", "refusal"), ended(status, "client_disconnected"))
    (text,) = await written(bench)
    assert (text.status, text.reason) == ("cancelled", "client_disconnected")


async def test_a_redacted_part_is_counted_unless_asked_for(bench: Bench) -> None:
    """A redacted part is only counted by default, and yields no empty text."""
    await bench.publish(REDACTED, COMPLETED)
    default = [handler for name, handler in BUILT_IN.items() if name != "redacted"]
    await bench.consumer(handlers=default).work()
    assert await texts(bench.redis, bench.prefix) == []
    assert (await counts(bench.redis, bench.prefix))["type:deltaloom.part.redacted"] == 1


async def test_a_redacted_part_has_no_text(bench: Bench) -> None:
    """A redacted part yields an empty text with the integrity `redacted`, if its handler is on."""
    await bench.publish(REDACTED)
    (text,) = await written(bench)
    assert (text.kind, text.text, text.status, text.integrity) == ("reasoning", "", "completed", "redacted")


async def test_a_redacted_part_of_an_unknown_kind_is_counted(bench: Bench) -> None:
    """A redacted part of an unknown kind is counted by its type."""
    await bench.publish({**REDACTED, "kind": "thoughts"})
    assert await written(bench) == []
    assert (await counts(bench.redis, bench.prefix))["type:deltaloom.part.redacted"] == 1


async def test_a_part_with_words_is_not_redacted(bench: Bench) -> None:
    """A redacted part that has deltas keeps their text."""
    await bench.publish(delta(1, "I think"), REDACTED)
    (text,) = await written(bench)
    assert (text.text, text.integrity) == ("I think", "unverified")


@pytest.mark.parametrize(
    ("closing", "integrity"),
    [
        (with_checksum("I can't.é"), "verified"),
        (with_checksum("I can't.é", text_bytes=3), "unverified"),
        (with_checksum("I can."), "unverified"),
    ],
    ids=["equal", "other length", "other text"],
)
async def test_a_checksum_in_place_of_the_text(bench: Bench, closing: dict[str, Any], integrity: str) -> None:
    """A checksum and a length verify the joined deltas in place of the whole text."""
    await bench.publish(delta(1, "I can't", "refusal"), delta(2, ".é", "refusal"), closing)
    (text,) = await written(bench)
    assert (text.text, text.status, text.integrity) == ("I can't.é", "completed", integrity)
    assert text.integrity_source == "provider"


@pytest.mark.parametrize("array", [False, True], ids=["entries", "array"])
async def test_a_text_behind_a_checksum_is_late(bench: Bench, *, array: bool) -> None:
    """A text after the checksum is late, no matter how the events are cut into entries."""
    part = {"type": "refusal", "refusal": "I can't."}
    copy = {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": part}
    events = [delta(1, "I can", "refusal"), with_checksum("I can't."), copy]
    await (bench.publish(json.dumps(events)) if array else bench.publish(*events))
    (text,) = await written(bench)
    assert (text.text, text.integrity) == ("I can", "unverified")
    (other,) = await raised(bench, "text.contradicted")
    assert other.text == ""  # the checksum came first, and has no text


async def test_who_wrote_the_authoritative_text(bench: Bench) -> None:
    """`integrity_source` distinguishes texts that the producer joined from texts of the provider."""
    await bench.publish(delta(1, "no", "refusal"), {**done("no", "refusal"), "integrity_source": "producer"})
    await bench.publish(delta(1, "no", "refusal"), done("no", "refusal"), response_id="resp_2")
    by_producer, by_provider = await written(bench)
    assert (by_producer.integrity, by_producer.integrity_source) == ("verified", "producer")
    assert (by_provider.integrity, by_provider.integrity_source) == ("verified", "provider")


@pytest.mark.parametrize(
    ("closing", "integrity"),
    [
        (done("I can", "refusal"), "repaired"),
        (with_checksum("I can"), "unverified"),
        (COMPLETED, "unverified"),
    ],
    ids=["text", "checksum", "no text"],
)
async def test_after_a_loss_nothing_is_verified(
    bench: Bench, closing: dict[str, Any], integrity: str
) -> None:
    """A text that is closed after a reported loss is never `verified`, since deltas may be missing."""
    await bench.publish(delta(1, "I can", "refusal"), LOSS, closing)
    (text,) = await written(bench)
    assert (text.text, text.integrity) == ("I can", integrity)


async def test_a_loss_concerns_what_is_closed_after_it(bench: Bench) -> None:
    """A reported loss affects neither texts closed before it nor other responses."""
    await bench.publish(delta(1, "I can", "refusal"), done("I can", "refusal"), LOSS, COMPLETED)
    await bench.publish({**LOSS, "response_id": "resp_3"}, response_id="")
    await bench.publish(delta(1, "I can", "refusal"), done("I can", "refusal"), response_id="resp_2")
    assert [text.integrity for text in await written(bench)] == ["verified", "verified"]


# -------------------------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("end", "alert_type", "reason_class"),
    [
        (ended("incomplete", "refusal"), "response.refused", "refusal"),
        (ended("failed", "refusal"), "response.refused", "refusal"),
        (ended("incomplete", "content_filter"), "response.filtered", "safety"),
        (ended("incomplete", "PROHIBITED_CONTENT"), "response.filtered", "policy"),
        (ended("incomplete", "guardrail_intervened"), "response.filtered", "guardrail"),
        (ended("incomplete", "recitation"), "response.filtered", "recitation"),
        (ended("failed", "DataInspectionFailed"), "response.blocked", "safety"),
        (ended("failed", "400", reason_class="policy"), "response.blocked", "policy"),
    ],
)
async def test_alert_of_a_reason(
    bench: Bench, end: dict[str, Any], alert_type: str, reason_class: str
) -> None:
    """A known reason raises the alert of its class."""
    await bench.publish(end)
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.reason_class, alert.text) == (f"deltaloom.{alert_type}", reason_class, "")


@pytest.mark.parametrize("reason", ["refusal", "content_filter", "SAFETY", "guardrail_intervened"])
async def test_a_response_with_a_refusal_has_no_second_alert(bench: Bench, reason: str) -> None:
    """A refusal that also ends its response raises no alert of the response."""
    await bench.publish(delta(1, "no", "refusal"), ended("incomplete", reason))
    await bench.consumer().work()
    found = [alert.type for alert in await alerts(bench.redis, bench.prefix)]
    assert found == ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]


@pytest.mark.parametrize("together", [True, False])
async def test_a_refusal_that_only_the_final_copy_has_counts(bench: Bench, *, together: bool) -> None:
    """A refusal known only from the final copy counts too, no matter how the stream is cut."""
    events = (FINAL, ended("failed", "cyber_policy"))
    for each in [events] if together else [(event,) for event in events]:
        await bench.publish(*each)
        await bench.consumer().work()
    found = [alert.type for alert in await alerts(bench.redis, bench.prefix)]
    assert found == ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]


@pytest.mark.parametrize("reason", ["max_output_tokens", "server_error", "something new", None])
async def test_other_reasons_raise_nothing(bench: Bench, reason: str | None) -> None:
    """Limits, errors and unknown reasons raise no moderation alert."""
    await bench.publish(ended("incomplete", reason))
    await bench.consumer().work()
    assert await alerts(bench.redis, bench.prefix) == []


async def test_a_provider_explains_its_reason(bench: Bench) -> None:
    """The provider's category and explanation are copied to the alert, except for errors."""
    await bench.publish(ended("incomplete", "refusal", category="cyber", explanation="It asked for malware."))
    await bench.publish(ended("failed", "cyber_policy", message="Not allowed."), response_id="resp_2")
    await bench.publish(
        delta(1, "x"), ended("failed", "server_error", message="key sk-1 failed"), response_id="resp_3"
    )
    (text,) = await written(bench)
    refused, blocked = await alerts(bench.redis, bench.prefix)
    assert (refused.provider_category, refused.provider_explanation) == ("cyber", "It asked for malware.")
    assert blocked.provider_explanation == "Not allowed."
    assert (text.reason_class, text.provider_explanation) == ("error", None)


async def test_refused_and_blocked_are_counted_apart(bench: Bench) -> None:
    """Refused and blocked responses are counted separately, by model, tenant and provider."""
    context = {"model": "m", "tenant": "t", "provider": "p"}
    ends = [
        [REFUSED],
        [delta(1, "no", "refusal"), COMPLETED],
        [ended("failed", "cyber_policy")],
        [COMPLETED],
        [CANCELLED],
        [delta(1, "no", "refusal"), CANCELLED],
    ]
    for number, events in enumerate(ends):
        await bench.publish(*events, response_id=f"resp_{number}", **context)
    await bench.consumer().work()
    keys = await bench.redis.keys(bench.names.name("rates:*"))
    for key in keys:
        stored = cast("dict[bytes, bytes]", await bench.redis.hgetall(key))
        fields = {name.decode(): int(value) for name, value in stored.items()}
        expected = {"responses": 5, "refused": 3, "blocked": 1}
        assert fields == {
            name: number
            for what, number in expected.items()
            for name in (f"{what}:model:m", f"{what}:tenant:t", f"{what}.provider:p")
            for number in (number,)
        }
    assert len(keys) == 2


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([CANCELLED, COMPLETED], {}),
        ([{"type": "error"}, REFUSED], {"responses:model:m": 1, "refused:model:m": 0}),
        (
            [ended("failed", "cyber_policy"), COMPLETED],
            {"responses:model:m": 1, "refused:model:m": 0, "blocked:model:m": 1},
        ),
    ],
    ids=["cancelled", "refused later", "blocked"],
)
async def test_the_first_end_counts(
    bench: Bench, events: list[dict[str, Any]], expected: dict[str, int], *, together: bool
) -> None:
    """A response is counted by its first end event, no matter how the stream is cut."""
    for each in [events] if together else [[event] for event in events]:
        await bench.publish(*each, model="m")
        await bench.consumer().work()
    counted: dict[bytes, bytes] = {}
    for key in await bench.redis.keys(bench.names.name("rates:*")):
        counted = cast("dict[bytes, bytes]", await bench.redis.hgetall(key))
    assert {name.decode(): int(value) for name, value in counted.items()} == expected


# ------------------------------------------------------------------------ ids are final


async def forget_state(bench: Bench, response_id: str = "resp_1") -> None:
    """Delete a response's state, as its expiry does after ten minutes; the marker stays."""
    assert await bench.redis.delete(bench.names.name(f"state:response:{response_id}")) == 1


async def test_a_marker_is_small_and_outlives_what_it_guards(bench: Bench) -> None:
    """The marker of a finished response has at most 200 bytes, and outlives texts and items."""
    name = "resp_" + "0" * 64
    await bench.publish(
        delta(1, "thinking"), delta(1, "no", "refusal"), done("no", "refusal"), COMPLETED, response_id=name
    )
    await written(bench)
    marker = Keys(bench.names).marker(StreamKey("response", name))
    assert (await bench.redis.memory_usage(marker) or 0) in range(1, 201)
    item_ttl, retention = bench.settings.item_ttl, bench.settings.retention
    assert await bench.redis.pttl(marker) > max(item_ttl, retention) * 1000 - 60_000
    assert await bench.redis.pttl(bench.names.name(f"state:response:{name}")) <= 600_000


@pytest.mark.parametrize("with_state", [True, False], ids=["at once", "days later"])
async def test_a_response_id_that_is_used_twice_is_seen(bench: Bench, *, with_state: bool) -> None:
    """A second text under a finished id is not written, and raises `text.contradicted` once."""
    await bench.publish(delta(1, "no", "refusal"), done("no", "refusal"), COMPLETED, tenant="acme")
    await written(bench)
    if not with_state:
        await forget_state(bench)
    for _ in range(2):
        await bench.publish(delta(1, "never", "refusal"), done("never", "refusal"), COMPLETED, tenant="acme")
        await bench.consumer().work()
    (text,) = await written(bench)
    (contradicted,) = await raised(bench, "text.contradicted")
    assert (text.text, contradicted.text, contradicted.severity) == ("no", "never", "info")
    assert (contradicted.response_id, contradicted.kind, contradicted.tenant) == ("resp_1", "refusal", "acme")
    assert (await counts(bench.redis, bench.prefix))["contradicted"] == 1
    assert len(await alerts(bench.redis, bench.prefix)) == 3
    item = await bench.redis.hgetall(bench.names.item("resp_1", 0))
    assert json.loads(item[b"refusal:0"])["text"] == "no"


@pytest.mark.parametrize("with_state", [True, False], ids=["at once", "days later"])
async def test_the_same_text_again_contradicts_nothing(bench: Bench, *, with_state: bool) -> None:
    """An identical text under a finished id raises nothing, since producers retry."""
    events = [delta(1, "no", "refusal"), done("no", "refusal"), with_checksum("no"), COMPLETED]
    await bench.publish(*events)
    await written(bench)
    if not with_state:
        await forget_state(bench)
    await bench.publish(*events)
    await written(bench)
    assert await raised(bench, "text.contradicted") == []
    assert len(await alerts(bench.redis, bench.prefix)) == 2


async def test_an_end_that_is_repeated_days_later_counts_once(bench: Bench) -> None:
    """An end event that is replayed days later neither counts nor raises an alert again."""
    end = ended("failed", "cyber_policy")
    await bench.publish(end, model="m")
    await written(bench)
    await forget_state(bench)
    await bench.publish(end, model="m")
    await written(bench)
    assert len(await alerts(bench.redis, bench.prefix)) == 1
    for key in await bench.redis.keys(bench.names.name("rates:*")):
        assert await bench.redis.hget(key, "responses:model:m") == b"1"


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "other",
    [done("never", "refusal"), with_checksum("never"), FINAL],
    ids=["done", "checksum", "final copy"],
)
async def test_another_text_of_one_stream_is_seen(
    bench: Bench, other: dict[str, Any], *, together: bool
) -> None:
    """A different text for a finished part raises `text.contradicted`, no matter how the stream is cut."""
    events = (delta(1, "no", "refusal"), done("no", "refusal"), other)
    for each in [events] if together else [(event,) for event in events]:
        await bench.publish(*each)
        await bench.consumer().work()
    (text,) = await written(bench)
    (contradicted,) = await raised(bench, "text.contradicted")
    assert text.text == "no"
    assert contradicted.text == ("" if "text_sha256" in other else "never")


async def test_a_late_text_of_a_text_that_was_given_up(redis: Redis, prefix: str) -> None:
    """An authoritative text that comes after its part was abandoned raises `text.contradicted`."""
    bench = Bench(redis, prefix, idle_timeout=0.001)
    await bench.publish(delta(1, "I", "refusal"))
    await wait_until(lambda: written(bench), message="the text is given up")
    await bench.publish(done("I can't.", "refusal"))
    (text,) = await written(bench)
    (contradicted,) = await raised(bench, "text.contradicted")
    assert (text.status, text.text, contradicted.text) == ("abandoned", "I", "I can't.")


async def test_an_item_is_written_once(bench: Bench) -> None:
    """An item field is never overwritten, even if all state of its part is lost."""
    await bench.publish(done("no", "refusal"), COMPLETED)
    await written(bench)
    await forget_state(bench)
    await bench.redis.delete(Keys(bench.names).marker(StreamKey("response", "resp_1")))
    await bench.publish(done("never", "refusal"), KEEPALIVE)
    (text,) = await written(bench)
    item = await bench.redis.hgetall(bench.names.item("resp_1", 0))
    assert (text.text, json.loads(item[b"refusal:0"])["text"]) == ("no", "no")


NAMELESS = {name: value for name, value in done("no", "refusal").items() if name != "item_id"}
COPY_OF_PART = {
    "type": "response.content_part.done",
    "output_index": 0,
    "content_index": 0,
    "part": {"type": "refusal", "refusal": "never"},
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("events", "item_id", "other"),
    [
        ((NAMELESS, delta(1, "no", "refusal")), None, None),
        ((delta(1, "no", "refusal"), done("no", "refusal"), COPY_OF_PART), "item_1", "never"),
        ((FINAL, ended_with_copy("nope"), done("nay", "refusal")), "item_1", "nope"),
    ],
    ids=["late item id", "nameless copy", "two copies"],
)
async def test_outputs_do_not_depend_on_how_the_stream_is_cut(
    bench: Bench,
    events: tuple[dict[str, Any], ...],
    item_id: str | None,
    other: str | None,
    *,
    together: bool,
) -> None:
    """Otherwise two deployments would write different messages under one id."""
    for each in [events] if together else [(event,) for event in events]:
        await bench.publish(*each)
        await bench.consumer().work()
    (text,) = await written(bench)
    assert text.item_id == item_id
    found = await raised(bench, "text.contradicted")
    assert [alert.text for alert in found] == ([] if other is None else [other])
    if other == "never":
        assert found[0].item_id is None


@pytest.mark.parametrize("together", [True, False])
async def test_a_copy_at_another_position_contradicts_no_redacted_part(
    bench: Bench, *, together: bool
) -> None:
    """A server that counts output items from 1 raises no alert for a redacted part."""
    redacted = {**REDACTED, "kind": "refusal", "output_index": 1}
    events = (redacted, {**done("never", "refusal"), "output_index": 2})
    output = [{"type": "reasoning"}, *ended_with_copy("never")["response"]["output"]]
    final = {"type": "response.completed", "response": {"output": output}}
    for each in [(*events, final)] if together else [(event,) for event in (*events, final)]:
        await bench.publish(*each)
        await bench.consumer().work()
    assert [text.text for text in await written(bench)] == ["", "never"]
    assert await raised(bench, "text.contradicted") == []


@pytest.mark.parametrize(
    ("given", "alert_type", "reason_class"),
    [("Safety", "response.filtered", "safety"), ("REFUSAL", "response.refused", "refusal")],
)
async def test_a_known_class_in_any_case(
    bench: Bench, given: str, alert_type: str, reason_class: str
) -> None:
    """`reason_class` is compared without regard to case."""
    await bench.publish(ended("incomplete", "x", reason_class=given))
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.reason_class) == (f"deltaloom.{alert_type}", reason_class)


async def test_a_class_beside_an_empty_incomplete_details(bench: Bench) -> None:
    """The class in `error` is used even if a serializer adds an empty `incomplete_details`."""
    error = {"code": "x", "reason_class": "policy"}
    await bench.publish({"type": "response.failed", "response": {"incomplete_details": {}, "error": error}})
    await bench.consumer().work()
    (alert,) = await alerts(bench.redis, bench.prefix)
    assert (alert.type, alert.reason_class) == ("deltaloom.response.blocked", "policy")


async def test_a_class_that_is_too_long_leaves_the_status_to_the_table(bench: Bench) -> None:
    """Status and class both come from the table of reasons if `reason_class` is too long."""
    await bench.publish(delta(1, "no", "refusal"), ended("failed", "cancelled", reason_class="r" * 257))
    (text,) = await written(bench)
    assert (text.status, text.reason_class, text.context_truncated) == (
        "cancelled",
        "cancelled",
        ("reason_class",),
    )
    assert (await counts(bench.redis, bench.prefix))["truncated:reason_class"] == 1


async def test_a_cancellation_whose_response_is_null(bench: Bench) -> None:
    """An end event with `"response": null` finishes the texts."""
    await bench.publish(delta(1, "no", "refusal"), {**CANCELLED, "response": None})
    (text,) = await written(bench)
    assert text.status == "cancelled"


@pytest.mark.parametrize(
    "event",
    [CANCELLED, COMPLETED, {"type": "error", "code": "cyber_policy"}, ended("failed", "cyber_policy")],
    ids=lambda event: event["type"],
)
async def test_an_end_that_nothing_identifies_is_counted(bench: Bench, event: dict[str, Any]) -> None:
    """An end event without a response id is counted by its type."""
    await add(bench.redis, bench.names.deltas, {"event": json.dumps(event)})
    assert await written(bench) == []
    assert await counts(bench.redis, bench.prefix) == {f"type:{event['type']}": 1}


async def test_values_left_out_are_counted_beside_a_thousand_types(bench: Bench) -> None:
    """The counts of truncated values are kept apart from the limited number of counted types."""
    await bench.publish(*({"type": f"made.up.{number}"} for number in range(1000)))
    await bench.consumer().work()
    await bench.publish(done("no", "refusal"), {"type": "new"}, tenant="t" * 257)
    await written(bench)
    found = await counts(bench.redis, bench.prefix)
    assert (found["truncated:tenant"], found["type:new"], found["type:(other)"]) == (1, 1, 1)


async def test_losses_of_a_batch_are_stored_once(bench: Bench) -> None:
    """Repeated losses of one batch are stored as one note. Otherwise they could fill the server."""
    await bench.publish(delta(1, "no", "refusal"), *[LOSS] * 20)
    await bench.consumer().work()
    fields = cast("list[bytes]", await bench.redis.hkeys(bench.names.name("state:response:resp_1")))
    assert len([field for field in fields if field.startswith(b"note:")]) == 1
