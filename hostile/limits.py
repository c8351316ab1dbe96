"""Default limits of what hostile input may cost."""

from __future__ import annotations

from typing import Final

STORED_PER_BYTE: Final = 8.0
"""Maximum bytes stored for each byte of hostile entries, in addition to `STORED_PER_EVENT`."""

STORED_PER_EVENT: Final = 16_384
"""Maximum bytes stored for each event of hostile entries, in addition to `STORED_PER_BYTE`."""

SLOWDOWN: Final = 4.0
"""Maximum ratio of the 99th percentiles of honest texts' times, with and without hostile load."""

FLOOR_MS: Final = 50.0
"""Minimum time without hostile load for that ratio, since a multiple of a shorter time would be noise."""

LATE_SECONDS: Final = 5.0
"""Maximum seconds for each honest text."""

LATE_DELIVERY_SECONDS: Final = 30.0
"""Maximum seconds for each honest alert from its stream to its destination."""

MEMORY: Final = 400 * 1024 * 1024
"""Maximum bytes of memory of a worker or relay."""

MEMORY_ENDS: Final = 1536 * 1024 * 1024
"""Bytes of memory at which a process is killed, and the run ends."""

ADDRESS_SPACE: Final = 4 * 1024**3
"""Limit of a process's address space, set in the operating system."""

SLOW_COMMAND_MS: Final = 100
"""Maximum milliseconds of the server for a command of a worker or relay."""

LOG_LINE: Final = 32_768
"""Maximum characters of a line in a log."""

TYPES: Final = 1000
"""Number of event types that a partition counts by name; further ones are counted under `OTHER_TYPES`.

A count by name may lack at most a thousandth of all counted events.
"""

OTHER_TYPES: Final = "type:(other)"

FIELDS: Final = 200
"""Number of left-out fields that a partition counts by name, in the same way."""

LETTER_ERROR: Final = 2000
"""Maximum characters of a dead letter's error."""

STOP_SECONDS: Final = 10.0
"""Maximum seconds until a process ends after SIGTERM."""

OPEN_RESPONSES: Final = 3_500
"""The workers' limit of open responses; there must never be more than twice as many."""

MAX_RETRY_AFTER: Final = 3.0
"""Maximum pause that a destination may request, in seconds (`max_retry_after` in `alerts.toml`)."""

PAUSE: Final = 61.0
"""Maximum seconds without an attempt to a destination: one that is down is tried once per minute."""
