"""What deltaloom writes: finished texts, moderation alerts and dead letters.

Every message travels as one stream entry: `__data__` holds the model's JSON (so a FastStream
subscriber annotated with the model just works), and a few plain fields (`PLAIN_FIELDS`) stand
beside it for everyone who reads the stream by hand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag

from deltaloom.reasons import ReasonClass

SCHEMA = 1
"""The version of the messages. It rises only when a field goes, or changes its meaning.

New fields, and new values of an open type below, do not raise it: a reader ignores the fields and takes the
values that it does not know.
"""

KnownKind = Literal["refusal", "reasoning", "reasoning_summary", "output_text"]
Kind = KnownKind | str
"""What a text is. `reasoning_summary` counts its parts by `summary_index`, the others by `content_index`."""

KnownStatus = Literal["completed", "incomplete", "failed", "cancelled", "abandoned"]
Status = KnownStatus | str
"""How a text ended: closed by its own event, its part's, its item's or by `response.completed`; the
response ended early; the response failed; somebody cancelled it; nothing came for the idle timeout."""

KnownIntegrity = Literal["verified", "repaired", "unverified", "redacted"]
Integrity = KnownIntegrity | str
"""The joined deltas equal the authoritative text; they differ (or there were none) and the
authoritative text was taken; there was no authoritative text; the provider withheld the text."""

KnownIntegritySource = Literal["provider", "producer"]
IntegritySource = KnownIntegritySource | str
"""The writer of the authoritative text: the provider, or the producer, which joined its own deltas."""

KnownTextType = Literal["deltaloom.text.assembled"]

KnownAlertSeverity = Literal["info", "warning", "critical"]
AlertSeverity = KnownAlertSeverity | str

KnownAlertType = Literal[
    "deltaloom.refusal.opened",
    "deltaloom.refusal.finished",
    "deltaloom.response.refused",
    "deltaloom.response.filtered",
    "deltaloom.response.blocked",
    "deltaloom.text.contradicted",
    "deltaloom.refusal.spike",
    "deltaloom.refusal.spike.ended",
]
AlertType = KnownAlertType | str
"""A refusal has begun; its whole text is known; a response was refused without a text; a filter cut a
response off; one failed because of a policy; another text came for a part that was finished; far more is
refused than before; that is over."""

KnownRateScope = Literal["model", "tenant", "provider"]
RateScope = KnownRateScope | str
"""The value by which responses are counted together."""

KnownDeadLetterReason = Literal[
    "malformed_json", "invalid_event", "oversized", "handler_error", "max_deliveries"
]
DeadLetterReason = KnownDeadLetterReason | str

KnownUndeliveredReason = Literal["refused", "expired", "gone", "unreadable"]
UndeliveredReason = KnownUndeliveredReason | str
"""The destination declined it; it did not take it in time; it is no more; the entry holds no alert."""

PLAIN_FIELDS = ("type", "id", "kind", "response_id", "item_id")
"""The fields that stand beside `__data__` in an entry; one that is null is left out."""


class _Model(BaseModel):
    """An immutable model that ignores the fields of a later version."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", serialize_by_alias=True, validate_by_alias=True, validate_by_name=True
    )


class Message(_Model):
    """The fields of every message."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    """The `SCHEMA` of the program that wrote it."""
    source: str | None = None
    """The prefix under which it was written: ids are unique within a prefix only."""


class Context(Message):
    """Whose text it is: copied from the producer's fields, or learned from `response.created`."""

    tenant: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    traceparent: str | None = None
    provider: str | None = None
    """The provider asked, as in OpenTelemetry's `gen_ai.provider.name`: `openai`, `aws.bedrock`, …"""
    upstream_provider: str | None = None
    """The provider that answered, where `provider` is a gateway; the same names."""
    dialect: str | None = None
    """The wire format that the producer translated from, like `anthropic.messages`."""
    upstream_response_id: str | None = None
    """The provider's own id of the response."""
    reference: str | None = None
    """The producer's own link or request id: how a person finds what was asked."""
    context_truncated: tuple[str, ...] = ()
    """The names of values that were left out because they were too long, sorted."""


class ResponseMessage(Context):
    """A message about one response, or about many."""

    id: str
    """Deterministic: the same thing always gives the same id, so a subscriber can drop repeats."""
    response_id: str | None = None
    item_id: str | None = None
    """The first one seen: some servers change it on every event."""
    text: str
    reason: str | None = None
    """Why it did not complete, in the provider's own value; or `cancelled`, `client_disconnected`,
    `idle_timeout`, `open_limit`."""
    reason_class: ReasonClass | None = None
    """The class of the reason (`deltaloom.reasons`); null if it completed."""
    provider_category: str | None = None
    """The provider's own category of the reason."""
    provider_explanation: str | None = None
    """The provider's words about the reason. They are about a user's request: treat them like a text."""


class PartMessage(ResponseMessage):
    """A message about one part of one response."""

    kind: Kind
    output_index: int
    content_index: int
    """Holds `summary_index` for a reasoning summary."""


class AssembledText(PartMessage):
    """A finished text."""

    type: KnownTextType | str = "deltaloom.text.assembled"
    status: Status
    integrity: Integrity
    integrity_source: IntegritySource | None = None
    """The writer of the authoritative text; null if there was none."""
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


class RefusalRate(_Model):
    """How many responses of a model, a tenant or a provider were refused: in a window, and before it.

    A response counts once, when it is over, and as refused if any part of it was a refusal.
    """

    by: RateScope
    name: str
    """The name of the model, the tenant or the provider."""
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
    blocked: int = 0
    """Responses in the window that a filter, a policy or a guardrail stopped; none is in `refused`."""
    baseline_blocked: int = 0
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
    """A response was refused or stopped, or more is refused than usual.

    `kind`, `output_index` and `content_index` are those of the text; the types that are about no single part
    have None there, and an empty text.
    """

    type: AlertType
    severity: AlertSeverity
    kind: Kind | None = None
    output_index: int | None = None
    content_index: int | None = None
    status: Status | None = None
    """How it ended; None while it is open, and where many are spoken of. `reason` likewise."""
    integrity: Integrity | None = None
    """On `deltaloom.refusal.finished` only."""
    integrity_source: IntegritySource | None = None
    """On `deltaloom.refusal.finished` only."""
    rate: RefusalRate | None = None
    """On `deltaloom.refusal.spike` and its end only."""
    raised_at: AwareDatetime
    """When the event that raised it was added to the input; server time for `abandoned`, and for spikes."""


def _message_kind(value: Any) -> str:
    """Tell a text from an alert of any version: only alerts have a severity."""
    has_severity = "severity" in value if isinstance(value, dict) else hasattr(value, "severity")
    return "alert" if has_severity else "text"


OutputMessage = Annotated[
    Annotated[AssembledText, Tag("text")] | Annotated[ModerationAlert, Tag("alert")],
    Discriminator(_message_kind),
]
"""Either message; one with a `severity` is an alert."""


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
    entry_bytes: int | None = None
    """Bytes of the original fields, if they are too many to keep: then `entry` has only the first, and
    cannot be replayed."""


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
