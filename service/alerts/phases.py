"""What an alert tells of: the word for its `type` in `alerts.toml`, and which phase ends which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import AlertType, ModerationAlert

Phase = Literal["opened", "finished", "filtered", "blocked", "spike", "spike_ended"]

PHASES: Final[Mapping[AlertType, Phase]] = {
    "deltaloom.refusal.opened": "opened",
    "deltaloom.refusal.finished": "finished",
    "deltaloom.response.filtered": "filtered",
    "deltaloom.response.blocked": "blocked",
    "deltaloom.refusal.spike": "spike",
    "deltaloom.refusal.spike.ended": "spike_ended",
}

BEGUN_BY: Final[Mapping[AlertType, AlertType]] = {
    "deltaloom.refusal.finished": "deltaloom.refusal.opened",
    "deltaloom.refusal.spike.ended": "deltaloom.refusal.spike",
}
"""What an ending ends."""


def phase_of(alert: ModerationAlert) -> Phase:
    """What an alert tells of."""
    return PHASES[alert.type]


def beginning_of(alert: ModerationAlert) -> ModerationAlert | None:
    """The alert that this one ends, as far as it can be known: without its text. None: it ends none."""
    began = BEGUN_BY.get(alert.type)
    if began is None:
        return None
    unknown = {"text": "", "status": None, "reason": None, "integrity": None}
    return alert.model_copy(update={"type": began, **(unknown if alert.kind else {})})


def group_of(alert: ModerationAlert) -> str:
    """What an alert's beginning and its end have in common, and nothing else has: a key to deduplicate by."""
    response = alert.response_id or alert.item_id
    if alert.kind is not None:
        return f"{response}/{alert.output_index}/{alert.content_index}/{alert.kind}"
    if alert.rate is not None:
        return f"refusal-rate/{alert.rate.by}/{alert.rate.name}"
    return f"{response}/{phase_of(alert)}"
