"""Test the messages of finished parts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.messages import AssembledText, Message, ModerationAlert
from handlers import refusal
from handlers.core.assembly import Assembly
from handlers.core.contradictions import Contradiction
from handlers.core.effects import ContextValues
from handlers.core.identity import PartKey, StreamKey
from handlers.core.outputs import assembled_text, contradiction_alert, part_fields, time_of
from handlers.core.response import FinishedPart
from handlers.core.routing import Opening

PART = PartKey(StreamKey("response", "resp_1"), 2, 1, "reasoning_summary")
CONTEXT = ContextValues(
    "acme",
    "m-1",
    "user-1",
    "00-aa-bb-01",
    "openrouter",
    "openai",
    "openai.responses",
    "gen-1",
    "https://trace/1",
    ("item_id", "reason"),
)
FINISHED = FinishedPart(
    PART,
    Assembly("text", 3, 1, 4, 9),
    "incomplete",
    "max_output_tokens",
    "unverified",
    "it_1",
    CONTEXT,
    1_700_000_000_123,
    1_700_000_001_000,
    0,
    "length",
    "category",
    "explanation",
    "producer",
)


def test_every_value_is_copied() -> None:
    """Copy each value into its field."""
    message = assembled_text(FINISHED).model_dump()
    assert message == {
        "schema": 1,
        "source": None,
        "type": "deltaloom.text.assembled",
        "id": PART.digest("text"),
        "kind": "reasoning_summary",
        "response_id": "resp_1",
        "item_id": "it_1",
        "output_index": 2,
        "content_index": 1,
        "text": "text",
        "status": "incomplete",
        "reason": "max_output_tokens",
        "reason_class": "length",
        "provider_category": "category",
        "provider_explanation": "explanation",
        "integrity": "unverified",
        "integrity_source": "producer",
        "delta_count": 3,
        "duplicate_count": 1,
        "first_sequence_number": 4,
        "last_sequence_number": 9,
        "started_at": datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
        "finished_at": datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
        "tenant": "acme",
        "model": "m-1",
        "safety_identifier": "user-1",
        "traceparent": "00-aa-bb-01",
        "provider": "openrouter",
        "upstream_provider": "openai",
        "dialect": "openai.responses",
        "upstream_response_id": "gen-1",
        "reference": "https://trace/1",
        "context_truncated": ("item_id", "reason"),
    }


@pytest.mark.parametrize("item_id", [None, "it_1"])
def test_without_a_response_id_the_item_is_named(item_id: str | None) -> None:
    """Name the item if there is no response id."""
    part = PART._replace(stream_key=StreamKey("item", "it_1"))
    fields = part_fields(part, item_id, ContextValues())
    assert (fields["response_id"], fields["item_id"]) == (None, "it_1")


def test_contradiction_alert_has_one_id_per_part() -> None:
    """Derive a contradiction alert's id from its part, so that a subscriber can drop repeats."""
    alert = contradiction_alert(Contradiction(PART, "other", "it_2", CONTEXT, 1_700_000_001_000))
    assert alert == ModerationAlert(
        type="deltaloom.text.contradicted",
        id=PART.digest("contradicted"),
        severity="info",
        kind="reasoning_summary",
        output_index=2,
        content_index=1,
        text="other",
        response_id="resp_1",
        item_id="it_2",
        raised_at=datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
        tenant="acme",
        model="m-1",
        safety_identifier="user-1",
        traceparent="00-aa-bb-01",
        provider="openrouter",
        upstream_provider="openai",
        dialect="openai.responses",
        upstream_response_id="gen-1",
        reference="https://trace/1",
        context_truncated=("item_id", "reason"),
    )


def test_absurd_entry_ids_have_a_time() -> None:
    """Limit the time of an extreme entry id, such as `XADD … 18446744073709551615-1`."""
    assert time_of(2**64 - 1).year == 9999
    assert time_of(0) == datetime(1970, 1, 1, tzinfo=UTC)


def is_as_validated(message: Message) -> bool:
    """Return whether a message is as its model would make it from the same values."""
    given_values = {name: getattr(message, name) for name in message.model_fields_set}
    validated = type(message).model_validate(given_values)
    return (
        message == validated
        and list(message.__dict__) == list(validated.__dict__)
        and message.model_fields_set == validated.model_fields_set
        and message.model_dump_json() == validated.model_dump_json()
        and hash(message) == hash(validated)
        and message.model_copy(update={"source": "x"}) == validated.model_copy(update={"source": "x"})
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
OPTIONAL = st.none() | TEXT
NUMBER = st.integers(0, 2**63)
CONTEXTS = st.builds(
    ContextValues, *[OPTIONAL] * (len(ContextValues._fields) - 1), st.lists(TEXT, max_size=2).map(tuple)
)
PARTS = st.builds(
    PartKey,
    st.builds(StreamKey, st.sampled_from(["response", "item"]), TEXT),
    NUMBER,
    NUMBER,
    st.sampled_from(["refusal", "reasoning", "own_kind"]),
)
FINISHED_PARTS = st.builds(
    FinishedPart,
    PARTS,
    st.builds(Assembly, TEXT, NUMBER, NUMBER, st.none() | NUMBER, st.none() | NUMBER),
    TEXT,
    OPTIONAL,
    TEXT,
    OPTIONAL,
    CONTEXTS,
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    NUMBER,
    OPTIONAL,
    OPTIONAL,
    OPTIONAL,
    OPTIONAL,
)


@given(FINISHED_PARTS)
def test_messages_are_as_their_models_would_validate_them(finished: FinishedPart) -> None:
    """Otherwise skipping the validation would show in what subscribers get."""
    text = assembled_text(finished)
    assert isinstance(text, AssembledText)
    assert is_as_validated(text)
    assert is_as_validated(refusal.finished(text))
    opening = Opening(finished.part, "a", finished.item_id, finished.context, finished.started_ms)
    assert is_as_validated(refusal.opened(opening))
    other = Contradiction(finished.part, "b", finished.item_id, finished.context, finished.finished_ms)
    assert is_as_validated(contradiction_alert(other))
