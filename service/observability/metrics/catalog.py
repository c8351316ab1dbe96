"""The metrics: their names, types, labels and meanings. docs/monitoring.md has the same table.

A process exports what it has done itself. Figures of the whole group are exported by one process of the group
(`leader.py`), and those of a destination by the relay that holds its lease. So a sum over all processes is
right for every metric that can be added.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

PREFIX: Final = "deltaloom_"

Kind = Literal["counter", "gauge", "histogram"]
Together = Literal["sum", "max", "min", "mean"]


class Metric(NamedTuple):
    """A metric."""

    name: str
    """Name without the common prefix."""
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    together: Together = "sum"
    """Function that joins the values of several processes of one machine, or of all."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without the infinite one."""

    @property
    def full_name(self) -> str:
        """Name with the common prefix."""
        return PREFIX + self.name


_LATENCY = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_CALL = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ENTRIES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0)

BUILD_INFO = Metric(
    "build_info",
    "gauge",
    "Version of the program, and of the state's format.",
    ("version", "state_format"),
    "max",
)
REDIS_UP = Metric("redis_up", "gauge", "1 if Redis answers this process, else 0.", (), "min")
REDIS_MISCONFIGURED = Metric(
    "redis_misconfigured",
    "gauge",
    "1 if this process waits for an operator to change Redis, such as to grant a right; else 0.",
    (),
    "max",
)
UNAVAILABLE_SECONDS = Metric(
    "redis_unavailable_seconds_total",
    "counter",
    "Seconds for which Redis did not answer this process.",
    (),
    "max",
)
LAST_COMMIT = Metric(
    "last_commit_timestamp_seconds",
    "gauge",
    "Time of the last commit of this process, in seconds since the epoch; 0 before the first.",
    (),
    "max",
)
BUSY_RATIO = Metric(
    "worker_busy_ratio",
    "gauge",
    "Rate of the last half minute as a share of the highest rate that this process could keep, about.",
    (),
    "mean",
)
ENTRIES_READ = Metric("entries_read_total", "counter", "Entries that were read for the first time.")
ENTRIES_ACKNOWLEDGED = Metric("entries_acknowledged_total", "counter", "Entries that were acknowledged.")
ENTRIES_CLAIMED = Metric(
    "entries_claimed_total",
    "counter",
    "Entries that were taken over from another worker or an earlier process.",
)
ENTRIES_LOST = Metric(
    "entries_lost_total", "counter", "Entries that were trimmed from the input before they were processed."
)
EVENTS = Metric("events_total", "counter", "Events of acknowledged entries, by type.", ("type",))
TEXTS = Metric("texts_finished_total", "counter", "Texts that were written.", ("kind", "status", "integrity"))
ALERTS = Metric("alerts_raised_total", "counter", "Alerts that were raised.", ("type", "severity"))
LETTERS = Metric("dead_letters_total", "counter", "Dead letters that were written.", ("reason",))
LATE_EVENTS = Metric("late_events_total", "counter", "Deltas that came after the end of their text.")
PRODUCER_LOST = Metric(
    "producer_lost_events_total", "counter", "Events that producers report to have dropped."
)
IGNORED_FIELDS = Metric("ignored_fields_total", "counter", "Odd fields that were left out of events.")
INPUT_TO_TEXT = Metric(
    "input_to_text_seconds",
    "histogram",
    "Seconds from the entry that closed a text to its output. Abandoned texts have none.",
    ("kind",),
    bounds=_LATENCY,
)
INPUT_TO_ALERT = Metric(
    "input_to_alert_seconds",
    "histogram",
    "Seconds from the entry that raised an alert to its output. Spikes and abandoned texts have none.",
    bounds=_LATENCY,
)
COMMIT_SECONDS = Metric(
    "commit_seconds", "histogram", "Seconds of a call that stores a batch and acknowledges it.", bounds=_CALL
)
SETTLE_SECONDS = Metric(
    "settle_seconds", "histogram", "Seconds of a call that writes finished texts and alerts.", bounds=_CALL
)
BATCH_ENTRIES = Metric("batch_entries", "histogram", "Entries of a batch.", bounds=_ENTRIES)

INPUT_LAG = Metric("input_lag_entries", "gauge", "Entries that no worker has read.", (), "max")
INPUT_OLDEST = Metric(
    "input_oldest_seconds",
    "gauge",
    "Age of the oldest entry that is unread or pending; 0 without one.",
    (),
    "max",
)
PENDING = Metric("pending_entries", "gauge", "Entries that were read and not acknowledged.", (), "max")
OLDEST_PENDING = Metric(
    "oldest_pending_seconds", "gauge", "Age of the oldest pending entry; 0 without one.", (), "max"
)
LOW_WATER_AGE = Metric(
    "low_water_age_seconds",
    "gauge",
    "Age of the low-water mark, for which closed texts wait; 0 if no entry is unread or pending.",
    (),
    "max",
)
MEMORY_RATIO = Metric(
    "redis_memory_used_ratio",
    "gauge",
    "Used share of Redis' maxmemory, or of its machine's memory without a limit; of the fullest server.",
    (),
    "max",
)
OPEN = Metric("open_responses", "gauge", "Responses that are not over.", (), "max")
WAITING = Metric(
    "waiting_responses",
    "gauge",
    "Responses with a closed text that waits for the low-water mark.",
    (),
    "max",
)
STORED_COUNTS = Metric(
    "stored_counts_total",
    "counter",
    "Counts in Redis, which survive every process.",
    ("count",),
    "max",
)

BACKLOG = Metric(
    "relay_backlog",
    "gauge",
    "Alerts that the destination has still to get.",
    ("destination",),
    "sum",
)
RELAY_OLDEST = Metric(
    "relay_oldest_seconds",
    "gauge",
    "Age of the oldest alert that the destination has still to get; 0 without one.",
    ("destination",),
    "max",
)
DELIVERIES = Metric(
    "relay_deliveries_total",
    "counter",
    "Attempts to deliver a message, and messages that were given up, by outcome.",
    ("destination", "outcome"),
    "sum",
)
PAUSED = Metric(
    "relay_paused",
    "gauge",
    "1 if the destination is paused, down or disabled, else 0.",
    ("destination",),
    "max",
)

SPANS = Metric(
    "trace_spans_total",
    "counter",
    "Spans that were exported, failed or were dropped, by outcome; only of processes with traces.",
    ("outcome",),
)

TAP_REQUESTS = Metric(
    "tap_requests_total",
    "counter",
    "Requests that have ended, by upstream (empty if there is none) and outcome.",
    ("upstream", "outcome"),
)
TAP_OPEN = Metric("tap_open_requests", "gauge", "Requests under way.")
TAP_CONNECTIONS_REFUSED = Metric(
    "tap_connections_refused_total", "counter", "Connections that were closed because there were too many."
)
TAP_BYTES = Metric(
    "tap_bytes_total",
    "counter",
    "Bytes of bodies, by way: read from clients and upstreams, passed to clients, undelivered, ingested.",
    ("way",),
)
TAP_COPY_BYTES = Metric(
    "tap_copy_bytes_total",
    "counter",
    "Bytes of bodies for the copy, by end: sent to the copier, or dropped with a reason. `lost` counts those "
    "of the sent ones that a killed copier had not reported as taken.",
    ("end",),
)
TAP_COPY_WAITING = Metric("tap_copy_waiting_bytes", "gauge", "Bytes that wait for the copier.")
TAP_COPIES = Metric(
    "tap_copies_total",
    "counter",
    "Copies by end: begun, lost with a reason, or left out because the answer is no stream that can be read.",
    ("end",),
)
TAP_EVENTS = Metric(
    "tap_events_total",
    "counter",
    "Events of copies by end: published, merged into another one, or dropped with a reason.",
    ("end",),
)
TAP_EVENTS_WAITING = Metric("tap_waiting_events", "gauge", "Events that wait for Redis.")
TAP_RESTARTS = Metric("tap_copier_restarts_total", "counter", "Copiers that ended without being asked to.")

ARCHIVE_DATABASE_UP = Metric(
    "archive_database_up", "gauge", "1 if the archive's database answers this archiver, else 0.", (), "min"
)
ARCHIVE_ENTRIES = Metric(
    "archive_entries_total", "counter", "Entries of the outputs, by what became of them.", ("outcome",)
)
ARCHIVE_WAITING = Metric(
    "archive_waiting_entries",
    "gauge",
    "Entries that are not archived, without the unread ones of streams whose lag is unknown after an XDEL.",
    (),
    "max",
)
ARCHIVE_OLDEST = Metric(
    "archive_oldest_seconds",
    "gauge",
    "Age of the oldest entry that is not archived; 0 without one.",
    (),
    "max",
)
ARCHIVE_COMMIT_SECONDS = Metric(
    "archive_commit_seconds", "histogram", "Seconds of a transaction that archives a batch.", bounds=_CALL
)

CONSOLE_REQUESTS = Metric(
    "console_requests_total",
    "counter",
    "Requests that were answered, by what was asked for (`page`, `api`, `other`) and status.",
    ("asked_for", "status"),
)
CONSOLE_STREAMS = Metric("console_streams", "gauge", "Pages that watch.")
CONSOLE_ENTRIES = Metric("console_entries_total", "counter", "Entries that were read for pages that watch.")
CONSOLE_SKIPS = Metric(
    "console_skips_total", "counter", "Times that input was skipped because the console could not follow."
)

OF_WORKERS = (
    BUILD_INFO,
    REDIS_UP,
    REDIS_MISCONFIGURED,
    UNAVAILABLE_SECONDS,
    LAST_COMMIT,
    BUSY_RATIO,
    ENTRIES_READ,
    ENTRIES_ACKNOWLEDGED,
    ENTRIES_CLAIMED,
    ENTRIES_LOST,
    EVENTS,
    TEXTS,
    ALERTS,
    LETTERS,
    LATE_EVENTS,
    PRODUCER_LOST,
    IGNORED_FIELDS,
    INPUT_TO_TEXT,
    INPUT_TO_ALERT,
    COMMIT_SECONDS,
    SETTLE_SECONDS,
    BATCH_ENTRIES,
)
OF_GROUPS = (
    INPUT_LAG,
    INPUT_OLDEST,
    PENDING,
    OLDEST_PENDING,
    LOW_WATER_AGE,
    MEMORY_RATIO,
    OPEN,
    WAITING,
    STORED_COUNTS,
)
OF_RELAYS = (BACKLOG, RELAY_OLDEST, DELIVERIES, PAUSED)
OF_TRACES = (SPANS,)
OF_TAPS = (
    TAP_REQUESTS,
    TAP_OPEN,
    TAP_CONNECTIONS_REFUSED,
    TAP_BYTES,
    TAP_COPY_BYTES,
    TAP_COPY_WAITING,
    TAP_COPIES,
    TAP_EVENTS,
    TAP_EVENTS_WAITING,
    TAP_RESTARTS,
)

OF_ARCHIVERS = (
    ARCHIVE_DATABASE_UP,
    ARCHIVE_ENTRIES,
    ARCHIVE_WAITING,
    ARCHIVE_OLDEST,
    ARCHIVE_COMMIT_SECONDS,
)

OF_CONSOLES = (CONSOLE_REQUESTS, CONSOLE_STREAMS, CONSOLE_ENTRIES, CONSOLE_SKIPS)

METRICS = (*OF_WORKERS, *OF_GROUPS, *OF_RELAYS, *OF_TRACES, *OF_TAPS, *OF_ARCHIVERS, *OF_CONSOLES)
"""The metrics of all programs, in the order of the documentation."""

BY_NAME = {metric.name: metric for metric in METRICS}

STORED_COUNT_NAMES: Final = (
    "late",
    "lost",
    "ignored_fields",
    "truncated_values",
    "contradicted",
    "parts_beyond_limit",
    "set_aside",
    "without_effect",
)
"""Names of the counts in Redis; the last one is that of events without a handler or an effect."""

OTHER: Final = "(other)"
"""Value of a label for names from outside that are not known."""
