"""Test the output messages: fields, literals and compatibility."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from deltaloom.messages import (
    PLAIN_FIELDS,
    AssembledText,
    DeadLetter,
    KnownAlertSeverity,
    KnownAlertType,
    KnownDeadLetterReason,
    KnownIntegrity,
    KnownIntegritySource,
    KnownKind,
    KnownRateScope,
    KnownStatus,
    KnownUndeliveredReason,
    ModerationAlert,
    OutputMessage,
    RefusalRate,
)
from deltaloom.reasons import KnownReasonClass

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXT = AssembledText(
    id="text_1",
    kind="refusal",
    response_id="resp_1",
    output_index=0,
    content_index=0,
    text="I'm sorry",
    status="completed",
    integrity="verified",
    delta_count=2,
    duplicate_count=0,
    started_at=AT,
    finished_at=AT,
)
ALERT = ModerationAlert(
    type="deltaloom.refusal.opened",
    id="opened_1",
    kind="refusal",
    output_index=0,
    content_index=0,
    text="I'm",
    severity="warning",
    raised_at=AT,
)
SPIKE = ModerationAlert(
    type="deltaloom.refusal.spike",
    id="spike_1",
    text="",
    model="gpt-4o",
    severity="critical",
    rate=RefusalRate(
        by="model",
        name="gpt-4o",
        since=AT,
        until=AT,
        responses=200,
        refused=50,
        baseline_since=AT,
        baseline_responses=1000,
        baseline_refused=10,
        score=12.5,
    ),
    raised_at=AT,
)
EARLIER_ALERT = (
    '{"tenant":null,"model":null,"safety_identifier":null,"traceparent":null,"id":"opened_1","kind":"refusal",'
    '"response_id":null,"item_id":null,"output_index":0,"content_index":0,"text":"I\'m",'
    '"type":"deltaloom.refusal.opened","severity":"warning","status":null,"reason":null,"integrity":null,'
    '"raised_at":"2026-01-02T03:04:05Z"}'
)


def test_fields_are_those_of_the_contract() -> None:
    """Define exactly the fields of the contract."""
    ids = {"id", "kind", "response_id", "item_id", "output_index", "content_index", "text"}
    context = {
        "tenant",
        "model",
        "safety_identifier",
        "traceparent",
        "provider",
        "upstream_provider",
        "dialect",
        "upstream_response_id",
        "reference",
        "context_truncated",
    }
    reasons = {"reason", "reason_class", "provider_category", "provider_explanation"}
    closing = {"status", "integrity", "integrity_source"} | reasons
    message = {"schema_version", "source"}
    counts = {"delta_count", "duplicate_count", "first_sequence_number", "last_sequence_number"}
    times = {"started_at", "finished_at"}
    text = {"type"} | message | ids | context | closing | counts | times
    assert set(AssembledText.model_fields) == text
    assert set(TEXT.model_dump()) == text - {"schema_version"} | {"schema"}
    alert = {"type", "severity", "rate", "fallback", "raised_at"}
    assert set(ModerationAlert.model_fields) == alert | message | ids | context | closing
    assert set(DeadLetter.model_fields) == message | {
        "reason",
        "error",
        "stream",
        "entry_id",
        "deliveries",
        "failed_at",
        "entry",
        "entry_bytes",
    }


@pytest.mark.parametrize(
    ("literal", "values"),
    [
        (KnownIntegritySource, {"provider", "producer"}),
        (KnownAlertSeverity, {"info", "warning", "critical"}),
        (KnownRateScope, {"model", "tenant", "provider"}),
        (KnownUndeliveredReason, {"refused", "expired", "gone", "unreadable"}),
        (
            KnownReasonClass,
            {
                "refusal",
                "safety",
                "policy",
                "guardrail",
                "recitation",
                "length",
                "cancelled",
                "error",
                "unknown",
            },
        ),
        (KnownKind, {"refusal", "reasoning", "reasoning_summary", "output_text"}),
        (KnownStatus, {"completed", "incomplete", "failed", "cancelled", "abandoned"}),
        (KnownIntegrity, {"verified", "repaired", "unverified", "redacted"}),
        (
            KnownAlertType,
            {
                "deltaloom.refusal.opened",
                "deltaloom.refusal.finished",
                "deltaloom.response.refused",
                "deltaloom.response.filtered",
                "deltaloom.response.blocked",
                "deltaloom.response.fallback",
                "deltaloom.text.contradicted",
                "deltaloom.refusal.spike",
                "deltaloom.refusal.spike.ended",
            },
        ),
        (
            KnownDeadLetterReason,
            {"malformed_json", "invalid_event", "oversized", "handler_error", "max_deliveries"},
        ),
    ],
)
def test_literals_are_those_of_the_contract(literal: Any, values: set[str]) -> None:
    """Define exactly the literals of the contract."""
    assert set(get_args(literal)) == values


@pytest.mark.parametrize("message", [TEXT, ALERT, SPIKE])
def test_either_message_is_read_back(message: AssembledText | ModerationAlert) -> None:
    """Parse a message of either type from its JSON."""
    adapter: TypeAdapter[AssembledText | ModerationAlert] = TypeAdapter(OutputMessage)
    assert adapter.validate_json(message.model_dump_json()) == message


def test_alerts_of_an_earlier_version_are_read() -> None:
    """Parse alerts of v0.1.0, which may wait on the stream during an upgrade."""
    assert ModerationAlert.model_validate_json(EARLIER_ALERT) == ALERT


def test_shares_are_of_the_responses() -> None:
    """Compute shares, and 0 without responses."""
    rate = SPIKE.rate
    assert rate is not None
    assert (rate.share, rate.baseline_share) == (0.25, 0.01)
    nothing = rate.model_copy(update={"responses": 0, "baseline_responses": 0})
    assert (nothing.share, nothing.baseline_share) == (0, 0)


def test_times_are_rfc_3339_in_utc() -> None:
    """Write times in RFC 3339 format and UTC."""
    assert TEXT.model_dump(mode="json")["started_at"] == "2026-01-02T03:04:05Z"


def test_a_time_without_a_zone_is_refused() -> None:
    """Refuse a time without a zone."""
    with pytest.raises(ValidationError, match="timezone"):
        AssembledText.model_validate(TEXT.model_dump() | {"started_at": datetime(2026, 1, 1)})  # noqa: DTZ001


def test_fields_of_a_later_version_are_ignored() -> None:
    """Ignore fields of later versions. Otherwise an upgrade of the worker would break subscribers."""
    assert AssembledText.model_validate(TEXT.model_dump() | {"new": 1}) == TEXT


@pytest.mark.parametrize("name", ["kind", "status", "integrity", "integrity_source", "reason_class", "type"])
def test_values_of_a_later_version_are_read(name: str) -> None:
    """Accept unknown values. Otherwise an upgrade of the worker would break subscribers."""
    for message in (TEXT, ALERT):
        new = message.model_dump() | {name: "new"}
        adapter: TypeAdapter[AssembledText | ModerationAlert] = TypeAdapter(OutputMessage)
        read = adapter.validate_python(new)
        assert type(read) is type(message)
        assert getattr(read, name) == "new"


def test_alert_of_a_new_severity_is_an_alert() -> None:
    """Accept an unknown severity. Otherwise the alert would be parsed as a text and refused."""
    adapter: TypeAdapter[AssembledText | ModerationAlert] = TypeAdapter(OutputMessage)
    assert adapter.validate_python(ALERT.model_dump() | {"severity": "new"}).severity == "new"  # type: ignore[union-attr]


def test_schema_version_is_written() -> None:
    """Write the schema's version."""
    assert [json.loads(message.model_dump_json())["schema"] for message in (TEXT, ALERT, SPIKE)] == [1, 1, 1]
    assert AssembledText.model_validate(TEXT.model_dump() | {"schema": 2}).schema_version == 2


def test_messages_are_frozen() -> None:
    """Freeze messages. Otherwise one subscriber could change the message of another."""
    with pytest.raises(ValidationError, match="frozen"):
        TEXT.text = "other"  # type: ignore[misc]  # which is what mypy says too


@pytest.mark.parametrize("name", PLAIN_FIELDS)
def test_plain_fields_exist_in_both_messages(name: str) -> None:
    """Define each plain field in both messages."""
    assert name in AssembledText.model_fields
    assert name in ModerationAlert.model_fields
