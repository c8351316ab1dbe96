"""Event models, output messages and stream names: deltaloom's contract for producers and subscribers.

A Python producer uses `Publisher`, which needs redis-py (`deltaloom[redis]`); nothing else here makes
connections. Other producers need `StreamNames.deltas` and the event's JSON. A subscriber
needs `StreamNames.assembled`, `.alerts` or `.deliveries`, and the model of the messages there. With several
partitions, `Partitions(16).of(response_id)` has the names to write to, and `Partitions(16).all` the names to
read from.

Names are imported on first use, so that `deltaloom.dialects` and `deltaloom.reasons` need no pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaloom.messages import (
        HEARTBEAT_PREFIX,
        SCHEMA,
        AlertSeverity,
        AlertType,
        AssembledText,
        DeadLetter,
        DeadLetterReason,
        Delivery,
        DeliveryOutcome,
        Integrity,
        IntegritySource,
        Kind,
        ModelFallback,
        ModerationAlert,
        RateScope,
        RefusalRate,
        Status,
        TextPrivacy,
        UndeliveredAlert,
        UndeliveredReason,
    )
    from deltaloom.publishing import LossReport, Publisher, PublisherCounters, ResponseStream
    from deltaloom.reasons import REASONS, Reason, ReasonClass, reason_class
    from deltaloom.streams import GROUP, Partitions, StreamNames, partition_of
    from deltaloom.teeing import TeeMiddleware, instrument, instrument_all, tee, uninstrument

__all__ = [
    "GROUP",
    "HEARTBEAT_PREFIX",
    "REASONS",
    "SCHEMA",
    "AlertSeverity",
    "AlertType",
    "AssembledText",
    "DeadLetter",
    "DeadLetterReason",
    "Delivery",
    "DeliveryOutcome",
    "Integrity",
    "IntegritySource",
    "Kind",
    "LossReport",
    "ModelFallback",
    "ModerationAlert",
    "Partitions",
    "Publisher",
    "PublisherCounters",
    "RateScope",
    "Reason",
    "ReasonClass",
    "RefusalRate",
    "ResponseStream",
    "Status",
    "StreamNames",
    "TeeMiddleware",
    "TextPrivacy",
    "UndeliveredAlert",
    "UndeliveredReason",
    "instrument",
    "instrument_all",
    "partition_of",
    "reason_class",
    "tee",
    "uninstrument",
]

_MODULES = {
    "messages": (
        *("HEARTBEAT_PREFIX", "SCHEMA", "AlertSeverity", "AlertType", "AssembledText", "DeadLetter"),
        *("DeadLetterReason", "Delivery", "DeliveryOutcome", "Integrity", "IntegritySource", "Kind"),
        *("ModelFallback", "ModerationAlert", "RateScope", "RefusalRate", "Status", "TextPrivacy"),
        *("UndeliveredAlert", "UndeliveredReason"),
    ),
    "publishing": ("LossReport", "Publisher", "PublisherCounters", "ResponseStream"),
    "reasons": ("REASONS", "Reason", "ReasonClass", "reason_class"),
    "streams": ("GROUP", "Partitions", "StreamNames", "partition_of"),
    "teeing": ("TeeMiddleware", "instrument", "instrument_all", "tee", "uninstrument"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'deltaloom' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"deltaloom.{module}"), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
