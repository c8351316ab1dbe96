"""What deltaloom writes: finished texts, moderation alerts and dead letters.

Every message travels as one stream entry: `__data__` holds the model's JSON (so a FastStream
subscriber annotated with the model just works), and a few plain fields (`PLAIN_FIELDS`) stand
beside it for everyone who reads the stream by hand.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Kind = Literal["refusal", "reasoning", "reasoning_summary", "output_text"]
"""What a text is. `reasoning_summary` counts its parts by `summary_index`, the others by `content_index`."""

Status = Literal["completed", "incomplete", "failed", "abandoned"]
"""How a text ended: closed by its own event, its part's, its item's or by `response.completed`; the
response ended early; the response failed; nothing came for the idle timeout."""

Integrity = Literal["verified", "repaired", "unverified"]
"""The joined deltas equal the authoritative text; they differ (or there were none) and the
authoritative text was taken; there was no authoritative text."""

AlertSeverity = Literal["info", "warning", "critical"]

AlertType = Literal[
    "deltaloom.refusal.opened",
    "deltaloom.refusal.finished",
    "deltaloom.response.filtered",
    "deltaloom.response.blocked",
    "deltaloom.refusal.spike",
    "deltaloom.refusal.spike.ended",
]
"""A refusal has begun; its whole text is known; a content filter cut a response off; one failed with an error
that names a policy; far more is refused than before; no longer."""

RateScope = Literal["model", "tenant"]
"""Whose responses are counted together."""

DeadLetterReason = Literal["malformed_json", "invalid_event", "oversized", "handler_error", "max_deliveries"]

UndeliveredReason = Literal["refused", "expired", "gone", "unreadable"]
"""The destination declined it; it did not take it in time; it is no more; the entry holds no alert."""

PLAIN_FIELDS = ("type", "id", "kind", "response_id", "item_id")
"""The fields that stand beside `__data__` in an entry; one that is null is left out."""


class Message(BaseModel):
    """What every message has: it is immutable, and a reader ignores fields of a later version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Context(Message):
    """Whose text it is: copied from the producer's fields, or learned from `response.created`."""

    tenant: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    traceparent: str | None = None


class ResponseMessage(Context):
    """A message about one response, or about many."""

    id: str
    """Deterministic: the same thing always gives the same id, so a subscriber can drop repeats."""
    response_id: str | None = None
    item_id: str | None = None
    """The first one seen: some servers change it on every event."""
    text: str


class PartMessage(ResponseMessage):
    """A message about one part of one response."""

    kind: Kind
    output_index: int
    content_index: int
    """Holds `summary_index` for a reasoning summary."""


class AssembledText(PartMessage):
    """A finished text."""

    type: Literal["deltaloom.text.assembled"] = "deltaloom.text.assembled"
    status: Status
    reason: str | None = None
    """Why it did not complete: `max_output_tokens`, `content_filter`, `idle_timeout`, an error code."""
    integrity: Integrity
    delta_count: int
    """Distinct deltas used."""
    duplicate_count: int
    """Repeats dropped: a producer's retry stores an event twice."""
    first_sequence_number: int | None = None
    last_sequence_number: int | None = None
    started_at: AwareDatetime
    """When the entry that opened it was added to the input (from its id)."""
    finished_at: AwareDatetime
    """When the entry that closed it was added; server time for `abandoned`."""


class RefusalRate(Message):
    """How many of the responses of a model, or of a tenant, were refused: in a window, and before it.

    A response counts once, when it is over, and as refused if any part of it was a refusal.
    """

    by: RateScope
    name: str
    """Of the model, or of the tenant."""
    since: AwareDatetime
    """Where the window begins."""
    until: AwareDatetime
    responses: int
    """In the window."""
    refused: int
    baseline_since: AwareDatetime
    """Where what it is compared with begins; it ends where the window begins. Of a spike that goes on, the
    baseline stays what it was when the spike began."""
    baseline_responses: int
    baseline_refused: int
    score: float
    """How far the two shares are apart, in standard errors: the z of a two-proportion test."""

    @property
    def share(self) -> float:
        """Of the window's responses, how many were refused: from 0 to 1."""
        return self.refused / self.responses if self.responses else 0.0

    @property
    def baseline_share(self) -> float:
        """The same of the baseline."""
        return self.baseline_refused / self.baseline_responses if self.baseline_responses else 0.0


class ModerationAlert(ResponseMessage):
    """Something was refused, filtered or blocked, or more is refused than usual.

    `kind`, `output_index` and `content_index` are those of the refusal; the other types are about no single
    part, and have None there, and an empty text.
    """

    type: AlertType
    severity: AlertSeverity
    kind: Kind | None = None
    output_index: int | None = None
    content_index: int | None = None
    status: Status | None = None
    """How it ended; None while it is open, and where many are spoken of. `reason` likewise."""
    reason: str | None = None
    """Why it did not complete; of `filtered` and `blocked`, the code as the server sent it."""
    integrity: Integrity | None = None
    """On `deltaloom.refusal.finished` only."""
    rate: RefusalRate | None = None
    """On `deltaloom.refusal.spike` and its end only."""
    raised_at: AwareDatetime
    """When the event that raised it was added to the input; server time for `abandoned`, and for spikes."""


OutputMessage = Annotated[AssembledText | ModerationAlert, Field(discriminator="type")]
"""Either message, told apart by its `type`."""


class DeadLetter(Message):
    """An entry, or one event of an entry's array, that could not be handled. Plain fields, no `__data__`."""

    reason: DeadLetterReason
    error: str
    """One line a person can act on; never the text of the event."""
    stream: str
    entry_id: str
    deliveries: int
    failed_at: AwareDatetime
    entry: str
    """The original fields as a JSON object, so that it can be replayed. A value that is not UTF-8
    stands as `{"base64": "…"}`."""


class UndeliveredAlert(Message):
    """An alert that a destination did not get. Plain fields, beside those of the alert's own entry."""

    destination: str
    """Its name in `alerts.toml`."""
    reason: UndeliveredReason
    answer: str
    """The last one: status and the beginning of the answer, or what went wrong."""
    attempts: int
    """By the relay that gave up."""
    failed_at: AwareDatetime
    entry_id: str
    """Of the alert, in its stream."""
    alert: str | None = Field(default=None, alias="__data__")
    """The alert's JSON."""
