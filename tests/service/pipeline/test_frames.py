"""Test that the fast path and the slow path accept, refuse and decode events in the same way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import example, given
from hypothesis import strategies as st

from deltaloom import limits
from handlers import BUILT_IN
from handlers.core.effects import Fragment, Origin
from handlers.core.identity import Arrival, EntryId
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.pipeline.batch import Batch
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from service.ports.storage import RawEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from service.ports.commit import Commit

TABLE = RoutingTable(handler for name, handler in BUILT_IN.items() if name != "output_text")
LONGEST, MOST = 12_000, 5

any_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30]),
        st.floats(),
        st.text(max_size=4),
        st.sampled_from(["1", "-2", "1.0", 1.0, 0.0, 2.0**63]),
        st.sampled_from(["", "x" * 13_000, "\ud83d", "\ude00", "\ud83d\ude00", "\0", "é"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
good = {
    "type": st.sampled_from([*TABLE.routes, "response.output_text.delta", "keepalive", "new" * 50]),
    "delta": st.text(max_size=3),
    "item_id": st.sampled_from(["it_1", "it_2", "", None, "i" * limits.ID, "i" * (limits.ID + 1)]),
    "output_index": st.integers(0, 1),
    "content_index": st.integers(0, 1),
    "summary_index": st.integers(0, 1),
    "sequence_number": st.one_of(st.none(), st.integers(0, 5)),
    "refusal": st.text(max_size=3),
    "text": st.text(max_size=3),
    "text_sha256": st.sampled_from([None, "0a" * 32, "0A" * 32, "0a" * 33]),
    "text_bytes": st.sampled_from([None, 0, 3]),
    "integrity_source": st.sampled_from([None, "producer"]),
    "kind": st.sampled_from(["refusal", "reasoning", "none"]),
    "response_id": st.sampled_from([None, "resp_1", "r" * limits.ID, "r" * (limits.ID + 1)]),
    "dropped": st.sampled_from([None, 3]),
    "obfuscation": any_json,
}


@st.composite
def events(draw: st.DrawFn) -> Any:
    """Return a mostly good event with up to two arbitrary fields, or any JSON value."""
    if draw(st.integers(0, 19)) == 0:
        return draw(any_json)
    event = {name: draw(value) for name, value in good.items() if name == "type" or draw(st.integers(0, 9))}
    for name in draw(st.sets(st.sampled_from([*good, "error", "response", "item", "part"]), max_size=2)):
        event[name] = draw(any_json)
    return event


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return the bytes of an `event` field: JSON in any formatting, possibly damaged."""
    value = draw(st.one_of(events(), st.lists(events(), max_size=7)))
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])),
    )
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        damage = [b"", b"\xff", b"\\", b'"', b"{", b"]", b",", b"0", b"\n", b"\\ud800", b"{}", b" ", b"NaN"]
        body[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(damage))
    return bytes(body)


def read(entries: list[RawEntry]) -> Commit:
    """Return the commit of a batch of these entries."""
    router = EventRouter(
        TABLE, open_entry, stream="s", max_event_bytes=LONGEST, max_array_length=MOST, max_response_parts=512
    )
    return Batch(DecodedBatch.of(router.rules, entries), router, now_ms=1).commit


def content_of(commit: Commit) -> Any:
    """Return the whole content of a commit, sorted where order has no meaning."""
    responses = {
        key: (
            {
                part: (set(commit.fragments(added)), added.closings, added.item_id, added.ids_differ)
                for part, added in change.parts.items()
            },
            change.endings,
            change.notes,
            change.registers,
        )
        for key, change in commit.responses.items()
    }
    counts = {name: sorted(entries) for name, entries in commit.counts.items()}
    return responses, counts, commit.touched, sorted(commit.dead_letters, key=str)


def slow_path(entries: list[RawEntry]) -> Commit:
    """Return the commit of the same entries by the slow path, which a repeated field name selects."""
    return read([RawEntry(entry_id, [*fields, *fields[:2]]) for entry_id, fields in entries])


_DELTA = (
    '{"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "item_id": "a", "delta": "I"}'
)
_NO_DELTA = _DELTA.replace('"delta":', '"no":')
_OTHER_ITEM = _DELTA.replace('"a"', '"b"')
_EMPTY_ITEM = _DELTA.replace('"a"', '""')
_LONG_ITEM = _DELTA.replace('"a"', f'"{"i" * (limits.ID + 1)}"')


@given(
    st.lists(
        st.tuples(
            bodies(),
            st.sampled_from([b"resp_1", b"resp_2", b"", b"\xff", b"r" * limits.ID, b"r" * (limits.ID + 1)]),
            st.sampled_from([b"acme", b"", b"t" * limits.NAME, b"t" * (limits.NAME + 1)]),
        ),
        min_size=1,
        max_size=4,
    )
)
@example([(b'{"type":"x","x":"\xff"}', b"resp_1", b"")])
@example([(b'{"type":"x"}{"type":"y"}', b"resp_1", b"")])
@example([(b"[]", b"resp_1", b"")])
@example([(f"[{_DELTA}, {_NO_DELTA}, {_DELTA}]".encode(), b"resp_1", b"")])
@example([(body.encode(), b"resp_1", b"") for body in (_DELTA, _NO_DELTA, _DELTA)])
@example([(body.encode(), b"resp_1", b"") for body in (_DELTA, _OTHER_ITEM, _DELTA)])
@example([(f"[{_DELTA}, {_OTHER_ITEM}, {_DELTA}]".encode(), b"resp_1", b"")])
@example([(f"[{_EMPTY_ITEM}, {_OTHER_ITEM}, {_EMPTY_ITEM}]".encode(), b"resp_1", b"")])
@example([(body.encode(), b"resp_1", b"") for body in (_EMPTY_ITEM, _EMPTY_ITEM, _DELTA)])
@example([(body.encode(), b"", b"") for body in (_EMPTY_ITEM, _DELTA)])
@example([(f"[{_LONG_ITEM}, {_LONG_ITEM}, {_DELTA}]".encode(), b"resp_1", b"")])
@example([(body.encode(), b"resp_1", b"t" * 257) for body in (_LONG_ITEM, _LONG_ITEM, _DELTA)])
def test_both_paths_decode_alike(inputs: list[tuple[bytes, bytes, bytes]]) -> None:
    """Decode any entries alike on both paths."""
    entries = [
        RawEntry(f"{number}-0".encode(), [b"event", body, b"response_id", response_id, b"tenant", tenant])
        for number, (body, response_id, tenant) in enumerate(inputs, 1)
    ]
    assert content_of(read(entries)) == content_of(slow_path(entries))


def test_common_events_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the fast path for common events.

    Otherwise the test above would compare the slow path with itself.
    """
    delta = {"type": "response.refusal.delta", "delta": "é", "output_index": 0, "content_index": 0}
    body = json.dumps([delta, {"type": "response.output_text.delta"}], ensure_ascii=False).encode()
    entries = [RawEntry(b"1-0", [b"event", body, b"response_id", b"r"])]
    monkeypatch.setattr(Batch, "_read", None)
    commit = read(entries)
    assert [len(change.parts) for change in commit.responses.values()] == [1]
    assert commit.counts == {"type:response.output_text.delta": [0]}


def _deltas() -> Iterator[tuple[str, Any]]:
    for handler in BUILT_IN.values():
        for route in handler.routes:
            if route.adds is not None:
                yield route.adds, route


def test_routes_declare_the_kind_that_their_handlers_add() -> None:
    """Check that the kind a route declares in `adds` is the one that its handler adds."""
    origin = Origin(Arrival(EntryId(1, 0), 0), "resp_1")
    routes = list(_deltas())
    assert len(routes) == 4
    for kind, route in routes:
        event = {"type": route.event_type, "delta": "d", "output_index": 3, "sequence_number": 7}
        event |= {"content_index": 4, "summary_index": 4, "item_id": "it"}
        (effect,) = route.handle(route.model.model_validate(event), origin)
        assert isinstance(effect, Fragment)
        assert (effect.part.kind, effect.part.output_index, effect.part.content_index) == (kind, 3, 4)
        assert (effect.delta, effect.sequence_number, effect.item_id) == ("d", 7, "it")
