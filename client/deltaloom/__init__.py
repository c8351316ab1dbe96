"""deltaloom's contract for producers and subscribers: event models, output messages and stream names.

Nothing here talks to a server. A producer needs `StreamNames.deltas` and the event's JSON; a
subscriber needs `StreamNames.assembled` or `.alerts` and the model to read what it finds there. Where
there are several partitions, `Partitions(16).of(response_id)` has the names to write to, and `.all` those
to read.
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
