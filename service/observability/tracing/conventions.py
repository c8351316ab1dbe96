"""The names of OpenTelemetry's semantic conventions that spans have, and what a span may say.

No name of an attribute is made up where the conventions have one. Those of our own begin with `deltaloom.`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import unquote, urlsplit

from opentelemetry.trace import SpanContext, TraceFlags

from deltaloom.messages import KnownAlertType

if TYPE_CHECKING:
    from deltaloom.address import Address

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.1"
"""The conventions of all names here. It is the last version with both messaging and GenAI: later ones have
GenAI in a repository of its own, which has no release yet."""

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
STREAM: Final = "messaging.destination.name"
GROUP_NAME: Final = "messaging.consumer.group.name"
CLIENT_ID: Final = "messaging.client.id"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
MESSAGE_ID: Final = "messaging.message.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"

REDELIVERED: Final = "deltaloom.batch.redelivered"
ACKNOWLEDGED: Final = "deltaloom.batch.acknowledged"
DEAD_LETTERS: Final = "deltaloom.batch.dead_letters"
LINKS_LEFT_OUT: Final = "deltaloom.links_left_out"
DESTINATION: Final = "deltaloom.delivery.destination"
ATTEMPT: Final = "deltaloom.delivery.attempt"
OUTCOME: Final = "deltaloom.delivery.outcome"
ALERT_TYPE: Final = "deltaloom.alert.type"

REDIS: Final = "redis"
"""The value of `messaging.system`. The registry has none for Redis, so another one is allowed."""
PROCESS: Final = "process"
DELIVER: Final = "deliver"

OTHER: Final = "(other)"

_REMEMBERED: Final = 2000
"""Number of traces that are kept parsed: the batches of a response have the same one."""

_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,100}(@[0-9]{8})?")
_ALERT_TYPES = frozenset(get_args(KnownAlertType))


@lru_cache(_REMEMBERED)
def span_context(traceparent: str) -> SpanContext | None:
    """Return the span that a W3C `traceparent` names; None if it is invalid."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(each, 16) for each in found.groups())
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def name_of_model(model: str | None) -> str | None:
    """Return the name of a model without the customer it was made for; None if it has no usable name.

    A producer may write anything into the field, so only what looks like a name is passed on. A fine-tuned
    model of OpenAI (`ft:gpt-4o:acme::id`) is shown as `ft:gpt-4o`. A resource name of AWS has the number of
    an account.
    """
    if model is None or not _NAME.fullmatch(model) or model.startswith("arn:"):
        return None
    return ":".join(model.split(":")[:2]) if model.startswith("ft:") else model


def name_of_provider(provider: str | None) -> str | None:
    """Return the name of a provider; None if it does not look like one."""
    return provider if provider is not None and _NAME.fullmatch(provider) else None


def name_of_alert_type(alert_type: str) -> str:
    """Return a type of alerts that the library knows; another one as `OTHER`."""
    return alert_type if alert_type in _ALERT_TYPES else OTHER


def server_attributes(address: Address) -> dict[str, str | int]:
    """Return host and port of a single server, or the path of its socket; else nothing."""
    if address.mode != "standalone":
        return {}
    parts = urlsplit(address.urls[0])
    if parts.scheme == "unix":
        return {SERVER_ADDRESS: unquote(parts.path)}
    return {SERVER_ADDRESS: parts.hostname or "localhost", SERVER_PORT: parts.port or 6379}
