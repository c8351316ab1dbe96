"""Event models, output messages and stream names: deltaloom's contract for producers and subscribers.

The library makes no connections. A producer needs `StreamNames.deltas` and the event's JSON. A subscriber
needs `StreamNames.assembled` or `.alerts`, and the model of the messages there. With several partitions,
`Partitions(16).of(response_id)` has the names to write to, and `Partitions(16).all` the names to read from.
"""

from deltaloom.messages import (
    SCHEMA,
    AlertSeverity,
    AlertType,
    AssembledText,
    DeadLetter,
    DeadLetterReason,
    Integrity,
    IntegritySource,
    Kind,
    ModerationAlert,
    RateScope,
    RefusalRate,
    Status,
    UndeliveredAlert,
    UndeliveredReason,
)
from deltaloom.reasons import REASONS, Reason, ReasonClass, reason_class
from deltaloom.streams import GROUP, Partitions, StreamNames, partition_of

__all__ = [
    "GROUP",
    "REASONS",
    "SCHEMA",
    "AlertSeverity",
    "AlertType",
    "AssembledText",
    "DeadLetter",
    "DeadLetterReason",
    "Integrity",
    "IntegritySource",
    "Kind",
    "ModerationAlert",
    "Partitions",
    "RateScope",
    "Reason",
    "ReasonClass",
    "RefusalRate",
    "Status",
    "StreamNames",
    "UndeliveredAlert",
    "UndeliveredReason",
    "partition_of",
    "reason_class",
]
