"""Test how events and errors of SDKs become messages of JSON's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from deltaloom.teeing.sdk_events import error_of, message_of


class SdkError(Exception):
    """An error with the attributes that SDKs give theirs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("an answer with an error")
        vars(self).update(attributes)


@dataclass
class Event:
    """An event that is a dataclass."""

    type: str
    data: Any = None


class Convertible:
    """An event that converts itself."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict."""
        return {"type": "x", "at": (1, 2)}


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (None, None),
        (SdkError(), None),
        (SdkError(body="no JSON"), None),
        (SdkError(body={"detail": "no error"}), None),
        (SdkError(body='{"error": {"code": "content_filter"}}'), {"code": "content_filter"}),
        (SdkError(details={"code": 400, "message": "no"}), {"code": 400, "message": "no"}),
        (SdkError(response={"Error": {"Code": "Throttled"}}), {"code": "Throttled"}),
    ],
    ids=["none", "bare", "text", "other", "in-text", "google", "botocore"],
)
def test_the_error_of_a_provider_is_found(error: Exception | None, own: dict[str, Any] | None) -> None:
    """Take the provider's error from where each SDK keeps it, and nothing else."""
    assert error_of(error) == ({"type": "error", "error": own} if own else None)


def test_events_become_plain() -> None:
    """Read dataclasses, objects that convert themselves, and bytes; leave out what is nested too deep."""
    assert message_of(Event("x", b"\0")) == {"type": "x", "data": "AA=="}
    assert message_of(Convertible()) == {"type": "x", "at": [1, 2]}
    assert message_of(object()) is None
    deep: Any = "end"
    for _ in range(1000):
        deep = [deep]
    assert "end" not in str(message_of({"type": "x", "deep": deep}))
