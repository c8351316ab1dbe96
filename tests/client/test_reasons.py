"""Test the table of reasons: the class of each provider's value."""

from __future__ import annotations

from typing import get_args

import pytest

from deltaloom import limits
from deltaloom.reasons import REASONS, STOPPED, KnownReasonClass, Reason, reason_class

BLOCKED_SINCE_0_1 = (
    "bio_policy",
    "blocklist",
    "content_filter",
    "content_policy_violation",
    "cyber_policy",
    "cyber_policy_violation",
    "data_inspection_failed",
    "datainspectionfailed",
    "image_content_policy_violation",
    "invalid_prompt",
    "misalignment_policy_violation",
    "moderation_blocked",
    "policy_violation",
    "prohibited_content",
    "responsibleaipolicyviolation",
    "safety",
    "safety_violation",
    "spii",
    "ResponsibleAIPolicyViolation",
    "SAFETY",
)


@pytest.mark.parametrize("code", BLOCKED_SINCE_0_1)
def test_codes_that_raised_an_alert_still_do(code: str) -> None:
    """Keep all codes that raised an alert in v0.1. Otherwise an upgrade would suppress alerts."""
    assert reason_class(code) in STOPPED


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("refusal", "refusal"),
        ("max_output_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("guardrail_intervened", "guardrail"),
        ("MODEL_ARMOR", "guardrail"),
        ("RECITATION", "recitation"),
        ("ERROR_TOXIC", "safety"),
        ("sensitive", "safety"),
        ("content-filter", "safety"),
        ("server_error", "error"),
        ("client_disconnected", "cancelled"),
        ("idle_timeout", "unknown"),
        ("", "unknown"),
        ("FAKE_ENUM", "unknown"),
        ("content_filter ", "unknown"),
    ],
)
def test_class_of_a_value(value: str, expected: str) -> None:
    """Look up a value in any letter case, and return `unknown` for others."""
    assert reason_class(value) == expected


def test_provider_and_field_distinguish_meanings() -> None:
    """Distinguish a value's meanings by provider and field."""
    assert reason_class("OTHER") == "unknown"
    assert reason_class("OTHER", provider="gcp.gemini", field="promptFeedback.blockReason") == "policy"
    assert reason_class("OTHER", field="finishReason") == "unknown"


@pytest.mark.parametrize("row", REASONS, ids=lambda row: f"{row.provider}-{row.field}-{row.value}")
def test_every_row_is_found_and_has_a_source(row: Reason) -> None:
    """Find each row by its own key, and name its source."""
    assert reason_class(row.value, provider=row.provider, field=row.field) == row.reason_class
    assert reason_class(row.value.swapcase(), provider=row.provider, field=row.field) == row.reason_class
    assert row.reason_class in get_args(KnownReasonClass)
    assert row.source.startswith("https://") or row.source == "docs/contract.md"
    assert len(row.value) <= limits.REASON


def test_every_key_is_unique() -> None:
    """Define each key once."""
    keys = [(row.provider, row.field, row.value.casefold()) for row in REASONS]
    doubled = {key for key in keys if keys.count(key) > 1}
    assert doubled <= {("alibaba_cloud", "error.code", "datainspectionfailed")}
