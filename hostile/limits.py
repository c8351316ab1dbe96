"""What hostile input may cost: the defaults of a run's limits."""

from __future__ import annotations

from typing import Final

STORED_PER_BYTE: Final = 8.0
"""Bytes that may be stored for each byte of hostile entries, ..."""

STORED_PER_EVENT: Final = 16_384
"""... and for each event in them."""

SLOWDOWN: Final = 4.0
"""How many times as long an honest text may take beside hostile load, at the 99th percentile."""

FLOOR_MS: Final = 50.0
"""A shorter time without hostile load counts as this one: a multiple of it would be noise."""

LATE_SECONDS: Final = 5.0
"""No honest text may take longer."""

LATE_DELIVERY_SECONDS: Final = 30.0
"""No honest alert may take longer from its stream to its destination."""

MEMORY: Final = 400 * 1024 * 1024
"""Bytes of memory that a worker or relay may have."""

MEMORY_ENDS: Final = 1536 * 1024 * 1024
"""Beyond this it is killed, and the run is over."""

ADDRESS_SPACE: Final = 4 * 1024**3
"""The operating system gives a process no more."""

SLOW_COMMAND_MS: Final = 100
"""No command of a worker or relay may take the server longer."""

LOG_LINE: Final = 32_768
"""Characters of a line in a log."""

TYPES: Final = 1000
"""Types of events that a partition counts by name. The others count together, under `OTHER_TYPES`; of a name
that is kept, no more than the thousandth part of all that was counted may be missing."""

OTHER_TYPES: Final = "type:(other)"

FIELDS: Final = 200
"""Fields left out that a partition counts by name, in the same way."""

LETTER_ERROR: Final = 2000
"""Characters of the line that a dead letter has for a person."""

STOP_SECONDS: Final = 10.0
"""A process ends within this time of SIGTERM."""

OPEN_RESPONSES: Final = 3_500
"""The workers' limit of open responses; more than twice as many are never seen."""

MAX_RETRY_AFTER: Final = 3.0
"""Seconds of pause that `alerts.toml` lets a destination ask for."""

PAUSE: Final = 61.0
"""Seconds that a destination is left alone at most: one that is down is tried once a minute."""
