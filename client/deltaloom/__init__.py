"""deltaloom's contract for producers and subscribers: event models, output messages and stream names.

Nothing here talks to a server. A producer needs `StreamNames.deltas` and the event's JSON; a
subscriber needs `StreamNames.assembled` or `.alerts` and the model to read what it finds there.
"""

from deltaloom.messages import (
    AlertSeverity,
    AssembledText,
    DeadLetter,
    DeadLetterReason,
    Integrity,
    Kind,
    ModerationAlert,
    Status,
)
from deltaloom.streams import GROUP, StreamNames, partition_of

__all__ = [
    "GROUP",
    "AlertSeverity",
    "AssembledText",
    "DeadLetter",
    "DeadLetterReason",
    "Integrity",
    "Kind",
    "ModerationAlert",
    "Status",
    "StreamNames",
    "partition_of",
]
