"""Recognize alerts about the synthetic refusals that `deltaloom alerts heartbeat` publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deltaloom.messages import HEARTBEAT_PREFIX

if TYPE_CHECKING:
    from deltaloom.messages import ModerationAlert

HEARTBEAT_TEXT: Final = "This is a heartbeat of deltaloom, not a refusal."
"""Text of the refusal."""


def is_heartbeat(alert: ModerationAlert) -> bool:
    """Return whether an alert is about a heartbeat, by its response id and its text.

    The response id alone is not enough, since producers choose it: a refusal could evade all routes, and its
    text all redaction.
    """
    return alert.text == HEARTBEAT_TEXT and (alert.response_id or "").startswith(HEARTBEAT_PREFIX)
