"""Limits of the values that producers send, in characters.

The longest id in 1,018 recorded streams has 83 characters. A `response_id` beyond its limit makes its event a
dead letter, and so does an `item_id` if there is no `response_id`. Any other value beyond its limit is left
out, counted, and named in the output's `context_truncated`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ID: Final = 1024
"""Maximum characters of a response id or an item id."""

NAME: Final = 256
"""Maximum characters of a name: tenant, model, provider, dialect or user."""

REFERENCE: Final = 512
"""Maximum characters of the producer's own link or request id."""

TRACEPARENT: Final = 55
"""Characters of a W3C `traceparent`, version 00 (https://www.w3.org/TR/trace-context/#traceparent-header)."""

REASON: Final = 256
"""Maximum characters of a reason, its class, and the provider's category of it."""

EXPLANATION: Final = 4096
"""Maximum characters of a provider's explanation of a reason."""

ITEMS: Final = 10_000
"""Maximum items of a response, and parts of an item. A longer list is left out."""

CONTEXT: Final[Mapping[str, int]] = MappingProxyType(
    {
        "tenant": NAME,
        "model": NAME,
        "safety_identifier": NAME,
        "traceparent": TRACEPARENT,
        "provider": NAME,
        "upstream_provider": NAME,
        "dialect": NAME,
        "upstream_response_id": ID,
        "reference": REFERENCE,
    }
)
"""Maximum characters of each context field."""

CONTEXT_BYTES: Final = 5120
"""Maximum bytes of all context fields together, as UTF-8; a control character counts as six, as in JSON.

Each message of a response repeats its context. ASCII letters within the limits of their fields are always
within this limit.
"""
