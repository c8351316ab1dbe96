"""Test how notes and endings are stored, and that v0.1.0 reads them where necessary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.messages import DeadLetter, KnownStatus, ModerationAlert
from handlers.core.context import RegisterName
from handlers.core.effects import CONTEXT_NAMES, Checksum, Copy, Ending, ModelChange, Note
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.text import text_digest
from service.storage.records import (
    REGISTERS,
    arrival_field,
    encode_ending,
    encode_note,
    entry_of_alert,
    entry_of_letter,
    note_of,
    state_of,
)
from tests.strategies import any_text, kinds, whole_text

KEY = StreamKey("response", "resp_1")
AT = Arrival(EntryId(5, 1), 2)
PART = PartKey(KEY, 0, 1, "refusal")

_EndingOfV0_1 = tuple[int | None, str, str | None, list[tuple[str | None, int, int, str, bytes]]]
"""A stored ending as v0.1.0 decodes it, with one of the four statuses below."""

_STATUSES_OF_V0_1 = {"completed", "incomplete", "failed", "abandoned"}

maybe_text = st.none() | whole_text
notes = st.builds(
    Note,
    st.none()
    | st.builds(Checksum, st.sampled_from(["0a" * 32, "ff" * 32]), st.none() | st.integers(0, 2**63 - 1)),
    st.sampled_from(["provider", "producer"]),
    st.booleans(),
    st.booleans(),
    st.none() | st.sampled_from(get_args(KnownStatus)),
    maybe_text,
    maybe_text,
    maybe_text,
    fallback=st.none() | st.builds(ModelChange, maybe_text, maybe_text, maybe_text),
)
endings = st.builds(
    Ending,
    st.just(KEY),
    st.none() | st.integers(0, 2**31 - 1),
    st.sampled_from(get_args(KnownStatus)),
    maybe_text,
    st.lists(
        st.builds(Copy, maybe_text, st.integers(0, 9), st.integers(0, 9), kinds, any_text), max_size=2
    ).map(tuple),
    maybe_text,
    maybe_text,
    maybe_text,
)


@given(notes)
def test_note_is_read_back(note: Note) -> None:
    """Keep all values of a note."""
    state = state_of(KEY, {f"note:{arrival_field(AT)}": encode_note(note)}, {})
    assert state.notes == {AT: note}
    assert state.endings == {}


@pytest.mark.parametrize(
    ("note", "stored"),
    [
        (Note(), {}),
        (Note(loss=True), {"loss": True}),
        (Note(Checksum("0a", 7), "producer"), {"sha256": "0a", "bytes": 7, "source": "producer"}),
        (Note(status="cancelled", reason_class="c"), {"status": "cancelled", "reason_class": "c"}),
    ],
)
def test_note_holds_only_set_values(note: Note, stored: dict[str, object]) -> None:
    """Store only the values that are set, so that later versions can add some."""
    assert msgspec.msgpack.decode(encode_note(note)) == stored


def test_note_of_a_later_version_is_read() -> None:
    """Ignore unknown values, so that two versions can run together."""
    later = msgspec.msgpack.encode({"sha256": "0a", "bytes": 7, "new": 1})
    assert state_of(KEY, {f"note:{arrival_field(AT)}": later}, {}).notes == {AT: Note(Checksum("0a", 7))}


@given(endings)
def test_ending_is_read_back_with_its_note(ending: Ending) -> None:
    """Keep all values of an ending."""
    fields = {f"end:{arrival_field(AT)}": encode_ending(ending)}
    if note_of(ending) != Note():
        fields[f"note:{arrival_field(AT)}"] = encode_note(note_of(ending))
    assert state_of(KEY, fields, {}).endings == {AT: ending}


@given(endings)
def test_ending_is_readable_by_v0_1_0(ending: Ending) -> None:
    """Store endings that v0.1.0 can decode, so that both versions can run during an upgrade."""
    output_index, status, reason, copies = msgspec.msgpack.decode(encode_ending(ending), type=_EndingOfV0_1)
    assert status in _STATUSES_OF_V0_1
    assert status == ("incomplete" if ending.status == "cancelled" else ending.status)
    assert (output_index, reason, len(copies)) == (ending.output_index, ending.reason, len(ending.copies))


def test_ending_of_v0_1_0_is_read() -> None:
    """Decode endings of v0.1.0. Otherwise responses that were open during the upgrade would be lost."""
    copies = [("it", 1, 2, "refusal", b"no")]
    stored = msgspec.msgpack.encode((None, "failed", "cyber_policy", copies))
    ending = Ending(KEY, None, "failed", "cyber_policy", (Copy("it", 1, 2, "refusal", "no"),))
    assert state_of(KEY, {f"end:{arrival_field(AT)}": stored}, {}).endings == {AT: ending}


def test_most_endings_have_no_note() -> None:
    """Store no note for a common ending. Otherwise it would be stored twice."""
    assert note_of(Ending(KEY, 0, "completed")) == Note()
    assert note_of(Ending(KEY, None, "failed", "x", (Copy(None, 0, 0, "refusal", "no"),))) == Note()


def test_digest_of_a_finished_part_is_read() -> None:
    """Return the digest of a finished part, or None for one of v0.1.0, which stored none."""
    digest = text_digest("no")
    fields = {"part:0:1:refusal": b"done", "part:0:2:refusal": b"done", "digest:0:1:refusal": digest.encode()}
    assert state_of(KEY, fields, {}).finished_parts == {PART: digest, PART._replace(content_index=2): None}


def test_every_context_field_has_its_registers() -> None:
    """Define registers for each context field. Otherwise a value would be stored and never read."""
    names = {*CONTEXT_NAMES, "item_id", "reason", "reason_class", "provider_category"}
    names |= {"provider_explanation", "from_model", "to_model", "trigger"}
    assert set(REGISTERS.values()) == {
        RegisterName(prefix + name, learned)
        for name in names
        for prefix in ("", "truncated:")
        for learned in (False, True)
        if prefix or name in CONTEXT_NAMES
    }
    assert "ctx:truncated:item_id" in REGISTERS
    assert "ctx:model:learned" in REGISTERS


AT_NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_alert_has_its_prefix() -> None:
    """Add the prefix to an alert, so that ids of two deployments can be distinguished."""
    alert = ModerationAlert(
        type="deltaloom.text.contradicted",
        id="x",
        severity="info",
        text="",
        kind="refusal",
        raised_at=AT_NOON,
    )
    fields = entry_of_alert(alert, "other")
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    assert set(named) == {"__data__", "type", "id", "kind"}
    assert json.loads(named["__data__"])["source"] == "other"
    assert ModerationAlert.model_validate_json(named["__data__"]) == alert.model_copy(
        update={"source": "other"}
    )


def test_dead_letter_has_its_prefix() -> None:
    """Add the prefix to a dead letter, so that letters of two deployments can be distinguished."""
    letter = DeadLetter(
        reason="oversized", error="e", stream="s", entry_id="1-0", deliveries=1, failed_at=AT_NOON, entry="{}"
    )
    fields = entry_of_letter(letter, "other")
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    assert (named["source"], named["schema"], named["reason"]) == ("other", "1", "oversized")
    assert all(isinstance(value, str) for value in fields)
