"""Define the names of alert types in `alerts.toml`, and which types end others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import AlertType, ModerationAlert

Phase = Literal[
    "opened",
    "finished",
    "refused",
    "filtered",
    "blocked",
    "fallback",
    "contradicted",
    "spike",
    "spike_ended",
]

PHASES: Final[Mapping[AlertType, Phase]] = {
    "deltaloom.refusal.opened": "opened",
    "deltaloom.refusal.finished": "finished",
    "deltaloom.response.refused": "refused",
    "deltaloom.response.filtered": "filtered",
    "deltaloom.response.blocked": "blocked",
    "deltaloom.response.fallback": "fallback",
    "deltaloom.text.contradicted": "contradicted",
    "deltaloom.refusal.spike": "spike",
    "deltaloom.refusal.spike.ended": "spike_ended",
}

BEGUN_BY: Final[Mapping[AlertType, AlertType]] = {
    "deltaloom.refusal.finished": "deltaloom.refusal.opened",
    "deltaloom.refusal.spike.ended": "deltaloom.refusal.spike",
}
"""Map each ending type to the type that it ends."""

_PART_PHASES: Final = frozenset({"opened", "finished"})
_RATE_PHASES: Final = frozenset({"spike", "spike_ended"})


def phase_of(alert: ModerationAlert) -> Phase | None:
    """Return the name of an alert's type in `alerts.toml`; None if this version does not know the type."""
    return PHASES.get(alert.type)


def beginning_of(alert: ModerationAlert) -> ModerationAlert | None:
    """Return the alert that began what this alert ends; None if this alert ends nothing.

    It is made from this alert, because the stored one is not at hand. It has no text, since this alert does
    not tell how much of its text was known at the beginning, and none of the facts that came later.
    """
    began = BEGUN_BY.get(alert.type)
    if began is None:
        return None
    later = {"text": "", "status": None, "reason": None, "reason_class": None, "integrity": None}
    return alert.model_copy(update={"type": began, **(later if alert.kind else {})})


def dedup_key_of(alert: ModerationAlert) -> str:
    """Return the deduplication key, shared only by the two alerts about one refusal, or about one spike."""
    phase = phase_of(alert)
    what = phase or alert.type
    response = alert.response_id or alert.item_id or (None if phase else alert.id)
    if alert.kind is not None:
        part = f"{response}/{alert.output_index}/{alert.content_index}/{alert.kind}"
        return part if phase in _PART_PHASES else f"{part}/{what}"
    if alert.rate is not None:
        rate = f"refusal-rate/{alert.rate.by}/{alert.rate.name}"
        return rate if phase in _RATE_PHASES else f"{rate}/{what}"
    return f"{response}/{what}"
