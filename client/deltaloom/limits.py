"""The longest values that the contract takes from producers, in characters.

The longest id in 1,018 recorded streams has 83 characters. A `response_id` beyond its limit, or an `item_id`
that is the only identity, makes its event a dead letter. Any other value is left out, counted, and named in
the output's `context_truncated`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ID: Final = 1024
"""An id of a response or of an item."""

NAME: Final = 256
"""A name: a tenant, a model, a provider, a dialect, a user."""

REFERENCE: Final = 512
"""The producer's own link or request id."""

TRACEPARENT: Final = 55
"""A W3C `traceparent` of version 00 (https://www.w3.org/TR/trace-context/#traceparent-header)."""

REASON: Final = 256
"""A reason, its class, and a provider's category of it."""

EXPLANATION: Final = 4096
"""A provider's explanation of a reason."""

ITEMS: Final = 10_000
"""The items of a response, and the parts of an item. A longer list is left out."""

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
"""The limit of each context field."""

CONTEXT_BYTES: Final = 5120
"""The bytes of all context fields together, as UTF-8; a control character counts as six, as in JSON.

Each message of a response repeats its context. Fields of ASCII letters that are within their own limits are
always within this one.
"""
