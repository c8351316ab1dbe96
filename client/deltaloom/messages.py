"""Models of the messages that deltaloom writes: texts, alerts, deliveries and dead letters.

A text, an alert or a delivery is one stream entry. Its field `__data__` has the model's JSON, as a FastStream
subscriber annotated with the model expects. A few plain fields (`PLAIN_FIELDS`) repeat values for people who
read the stream by hand. Dead letters and undelivered alerts have plain fields only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag

from deltaloom.kinds import KINDS
from deltaloom.reasons import ReasonClass

SCHEMA = 1
"""Version of the messages. It rises only when a field is removed or changes its meaning.

New fields, and new values of the open types below, do not raise it: a reader must ignore unknown fields and
accept unknown values.
"""

if TYPE_CHECKING:
    KnownKind: TypeAlias = str
else:
    KnownKind = Literal[tuple(KINDS)]
Kind = KnownKind | str
"""Kind of a text: a name in `deltaloom.kinds.KINDS`, or of a kind that a package with a handler brings."""

KnownStatus = Literal["completed", "incomplete", "failed", "cancelled", "abandoned"]
Status = KnownStatus | str
"""Status of a text. `completed`: its `.done`, a copy of its part or item, or `response.completed` closed it.
`incomplete`: the response ended early. `failed`: the response failed. `cancelled`: somebody cancelled the
response. `abandoned`: no event came for the idle timeout, or too many responses were open."""

KnownIntegrity = Literal["verified", "repaired", "unverified", "redacted"]
Integrity = KnownIntegrity | str
"""Integrity of a text. `verified`: the joined deltas equal the authoritative text or match its checksum.
`repaired`: they differ, or there were none, or the producer reported a loss; the text is the authoritative
one. `unverified`: no authoritative text and no matching checksum came. `redacted`: the provider withheld the
text."""

KnownIntegritySource = Literal["provider", "producer"]
IntegritySource = KnownIntegritySource | str
"""Writer of the authoritative text: the provider, or the producer, which joined its own deltas."""

KnownTextType = Literal["deltaloom.text.assembled"]

KnownAlertSeverity = Literal["info", "warning", "critical"]
AlertSeverity = KnownAlertSeverity | str

KnownAlertType = Literal[
    "deltaloom.refusal.opened",
    "deltaloom.refusal.finished",
    "deltaloom.response.refused",
    "deltaloom.response.filtered",
    "deltaloom.response.blocked",
    "deltaloom.response.fallback",
    "deltaloom.text.contradicted",
    "deltaloom.refusal.spike",
    "deltaloom.refusal.spike.ended",
]
AlertType = KnownAlertType | str
"""Type of an alert, in the order of the literals: a refusal has begun; its whole text is known; a response
was refused without a text; a filter cut off a response; a response failed because of a policy; another model
answered in place of one that refused; a different text came for a finished part; far more responses are
refused than before; that spike is over."""

KnownRateScope = Literal["model", "tenant", "provider"]
RateScope = KnownRateScope | str
"""Property by which responses are counted together in refusal rates."""

KnownDeadLetterReason = Literal[
    "malformed_json", "invalid_event", "oversized", "handler_error", "max_deliveries"
]
DeadLetterReason = KnownDeadLetterReason | str

KnownUndeliveredReason = Literal["refused", "expired", "gone", "unreadable"]
UndeliveredReason = KnownUndeliveredReason | str
"""Reason of an undelivered alert. `refused`: the destination rejected it. `expired`: the destination did not
accept it in time. `gone`: the destination is disabled. `unreadable`: the entry is not JSON, or has no valid
id, severity or time."""

KnownDeliveryType = Literal["deltaloom.alert.delivery"]

KnownDeliveryOutcome = Literal["delivered", "refused", "expired", "gone", "unreadable"]
DeliveryOutcome = KnownDeliveryOutcome | str
"""Outcome of an alert at a destination: `delivered`, or the reason for which it is undelivered."""

KnownTextPrivacy = Literal["full", "excerpt", "none"]
TextPrivacy = KnownTextPrivacy | str
"""Share of an alert's text that a route sends: all of it, the beginning, or nothing."""

HEARTBEAT_PREFIX = "deltaloom-heartbeat-"
"""Beginning of the response ids of synthetic refusals, which `deltaloom alerts heartbeat` publishes. A
subscriber that counts or keeps texts and alerts may skip them."""

PLAIN_FIELDS = ("type", "id", "kind", "response_id", "item_id")
"""Plain fields of an entry with `__data__`; a null value is left out."""


class _Model(BaseModel):
    """An immutable model that ignores unknown fields, such as those of a later version."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        serialize_by_alias=True,
        validate_by_alias=True,
        validate_by_name=True,
        defer_build=True,
    )


class Message(_Model):
    """The fields of every message."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    """Version of the message (`SCHEMA` of the program that wrote it)."""
    source: str | None = None
    """Prefix of the streams of the program that wrote it: ids are unique only within a prefix."""


class Context(Message):
    """The context of a response: copied from the producer's fields, or learned from `response.created`."""

    tenant: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    traceparent: str | None = None
    provider: str | None = None
    """Provider that was called, as in OpenTelemetry's `gen_ai.provider.name`: `openai`, `aws.bedrock`, …"""
    upstream_provider: str | None = None
    """Provider that answered, if `provider` is a gateway; the same names."""
    dialect: str | None = None
    """Wire format that the producer translated from, such as `anthropic.messages`."""
    upstream_response_id: str | None = None
    """Provider's own id of the response."""
    reference: str | None = None
    """Producer's own link or request id, by which a person finds the request."""
    context_truncated: tuple[str, ...] = ()
    """Sorted names of the values that were left out because they were too long."""


class ResponseMessage(Context):
    """A message about one response, or (a spike) about many."""

    id: str
    """Deterministic id: a repeat of the message has the same id, so that a subscriber can drop it."""
    response_id: str | None = None
    item_id: str | None = None
    """Item id of the earliest event: some servers change it on every event."""
    text: str
    reason: str | None = None
    """Reason why the response did not complete: the provider's own value, or `cancelled`,
    `client_disconnected`, `idle_timeout` or `open_limit`. Null if it completed."""
    reason_class: ReasonClass | None = None
    """Class of the reason (see `deltaloom.reasons`); null if the response completed."""
    provider_category: str | None = None
    """Provider's own category of the reason."""
    provider_explanation: str | None = None
    """Provider's explanation of the reason. It is about a user's request: protect it like a text."""


class PartMessage(ResponseMessage):
    """A message about one part of one response."""

    kind: Kind
    output_index: int
    content_index: int
    """Position of the part in its item; for a `reasoning_summary`, its `summary_index`."""


class AssembledText(PartMessage):
    """A finished text."""

    type: KnownTextType | str = "deltaloom.text.assembled"
    status: Status
    integrity: Integrity
    integrity_source: IntegritySource | None = None
    """Writer of the authoritative text; null if there was none."""
    delta_count: int
    """Number of distinct deltas that were joined."""
    duplicate_count: int
    """Number of repeated deltas that were dropped: a producer's retry stores an event twice."""
    first_sequence_number: int | None = None
    last_sequence_number: int | None = None
    started_at: AwareDatetime
    """Time at which the entry that began the text was added to the input (from the entry's id)."""
    finished_at: AwareDatetime
    """Time at which the entry that closed the text was added to the input; server time for `abandoned`."""


class RefusalRate(_Model):
    """The refusals of a model, a tenant or a provider: in a window, and in the baseline before it.

    A response is counted once, when it is over. It counts as refused if the model declined, in a refusal part
    or by the reason of its end.
    """

    by: RateScope
    name: str
    """Name of the model, the tenant or the provider."""
    since: AwareDatetime
    """Beginning of the window."""
    until: AwareDatetime
    """End of the window."""
    responses: int
    """Number of responses in the window."""
    refused: int
    """Number of refused responses in the window."""
    baseline_since: AwareDatetime
    """Beginning of the baseline, which ends where the window begins. During a spike, the baseline stays as it
    was when the spike began."""
    baseline_responses: int
    baseline_refused: int
    blocked: int = 0
    """Number of responses in the window that a filter, policy or guardrail stopped; not in `refused`."""
    baseline_blocked: int = 0
    score: float
    """Distance of the two shares in standard errors: the z score of a two-proportion test."""

    @property
    def share(self) -> float:
        """Share of refused responses in the window, from 0 to 1; 0 without responses."""
        return self.refused / self.responses if self.responses else 0.0

    @property
    def baseline_share(self) -> float:
        """Share of refused responses in the baseline, from 0 to 1; 0 without responses."""
        return self.baseline_refused / self.baseline_responses if self.baseline_responses else 0.0


class ModelFallback(_Model):
    """A provider's change to another model within one response, which may hide a refusal of the first one.

    The values are the provider's own; null if it did not give them.
    """

    from_model: str | None = None
    """Model that did not answer."""
    to_model: str | None = None
    """Model that answered in its place."""
    trigger: str | None = None
    """Reason of the change, such as `refusal`."""


class ModerationAlert(ResponseMessage):
    """An alert: a response was refused or stopped, or more responses are refused than usual.

    `kind`, `output_index` and `content_index` identify the text. Alerts that are not about a single part have
    null there, and an empty text.
    """

    type: AlertType
    severity: AlertSeverity
    kind: Kind | None = None
    output_index: int | None = None
    content_index: int | None = None
    status: Status | None = None
    """Status of the response or text; null on `deltaloom.refusal.opened`, `deltaloom.text.contradicted` and
    spikes. `reason` is null there too."""
    integrity: Integrity | None = None
    """Integrity of the text, on `deltaloom.refusal.finished` only; else null."""
    integrity_source: IntegritySource | None = None
    """Writer of the authoritative text, on `deltaloom.refusal.finished` only; else null."""
    rate: RefusalRate | None = None
    """Refusal rate, on `deltaloom.refusal.spike` and `deltaloom.refusal.spike.ended` only; else null."""
    fallback: ModelFallback | None = None
    """The models and the trigger, on `deltaloom.response.fallback` only; else null."""
    raised_at: AwareDatetime
    """Time at which the event that raised the alert was added to the input; server time for `abandoned` and
    for spikes."""


def _message_kind(value: Any) -> str:
    """Return the tag of a message of any version: only alerts have a severity."""
    has_severity = "severity" in value if isinstance(value, dict) else hasattr(value, "severity")
    return "alert" if has_severity else "text"


OutputMessage = Annotated[
    Annotated[AssembledText, Tag("text")] | Annotated[ModerationAlert, Tag("alert")],
    Discriminator(_message_kind),
]
"""A text or an alert; a message with a `severity` is an alert."""


class DeadLetter(Message):
    """An entry that could not be handled, or events of an entry's array. Plain fields, no `__data__`."""

    reason: DeadLetterReason
    error: str
    """Error with its remedy, in one line; it never contains the text of the event."""
    stream: str
    entry_id: str
    deliveries: int
    failed_at: AwareDatetime
    entry: str
    """Original fields as a JSON object, so that the entry can be replayed. A value that is not UTF-8, or has
    many control characters, is `{"base64": "…"}`."""
    entry_bytes: int | None = None
    """Bytes of the original fields if they were too large to keep, else null. Then `entry` has only their
    beginning, and cannot be replayed."""


class UndeliveredAlert(Message):
    """An alert that a destination did not get. Plain fields, next to those of the alert's own entry."""

    destination: str
    """Name of the destination in `alerts.toml`."""
    reason: UndeliveredReason
    answer: str
    """Last answer of the destination to any message: status and beginning of the body, or the error of the
    attempt. For `unreadable`, what is wrong with the entry."""
    attempts: int
    """Number of attempts by the relay that gave up."""
    failed_at: AwareDatetime
    entry_id: str
    """Id of the alert's entry in its stream."""
    alert: str | None = Field(default=None, alias="__data__")
    """JSON of the alert."""


class Delivery(Message):
    """The end of an alert at a destination: delivered or given up. It has no text."""

    type: KnownDeliveryType | str = "deltaloom.alert.delivery"
    id: str
    """Deterministic id of the alert's delivery to the destination."""
    destination: str
    """Name of the destination in `alerts.toml`."""
    outcome: DeliveryOutcome
    attempts: int
    """Number of attempts by the relay that ended it; 0 if none was necessary."""
    answer: str
    """Last answer of the destination, in one line of at most 300 characters, without secrets and texts; for
    `unreadable`, what is wrong with the entry."""
    raised_at: AwareDatetime
    """`raised_at` of the alert; for `unreadable`, the time at which its entry was added."""
    delivered_at: AwareDatetime | None = None
    """Time at which the destination confirmed the alert, by the relay's clock; null for other outcomes."""
    latency_ms: int
    """Milliseconds from `raised_at` to the end: to the confirmation, or until the relay gave up."""
    entry_id: str
    """Id of the alert's entry in its stream."""
    alert_id: str | None = None
    """`id` of the alert; null for `unreadable`, as are all following fields."""
    alert_type: AlertType | None = None
    response_id: str | None = None
    item_id: str | None = None
    kind: Kind | None = None
    severity: AlertSeverity | None = None
    """Severity that the rules gave the alert; the alert's own one may differ."""
    category: str | None = None
    rule: str | None = None
    """Name of the rule that gave severity and category; null if no rule fits."""
    route: str | None = None
    privacy: TextPrivacy | None = None
    digest_id: str | None = None
    """Id of the digest that the alert was a part of; null if it had a message of its own."""
