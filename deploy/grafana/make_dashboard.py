"""Make the Grafana dashboard: `python deploy/grafana/make_dashboard.py > deploy/grafana/dashboard.json`.

The rows go from what tells most at a glance to what explains it. Each panel says what it shows, and what is
normal.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

JOB = 'job=~"$job"'
"""The matcher of every selector: the deployments that are chosen at the top of the dashboard."""

WIDTH = 24
"""Columns of a dashboard."""

RATE = "$__rate_interval"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_GREEN_TO_RED = ("green", "orange", "red")


class Panel(NamedTuple):
    """A panel. Its queries are pairs of an expression and a legend."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    limits: tuple[float, ...] = ()
    """Values from which a number is orange, and red."""
    is_number: bool = False
    """True for the latest value alone, in large digits."""
    highest: float | None = None
    """The end of the axis; None for that of the data."""


def quantiles(histogram: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """Return the queries of a histogram's median and 99th percentile."""
    grouped = f"le, {by}" if by else "le"
    label = f" {{{{{by}}}}}" if by else ""
    buckets = f"sum by ({grouped}) (rate(deltaloom_{histogram}_bucket{{{JOB}}}[{RATE}]))"
    quantile_names = (("p50", 0.5), ("p99", 0.99))
    return tuple(
        (f"histogram_quantile({quantile}, {buckets})", f"{name}{label}") for name, quantile in quantile_names
    )


def rate(counter: str, by: str = "", legend: str = "") -> tuple[str, str]:
    """Return the query of a counter's increase a second."""
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate(deltaloom_{counter}{{{JOB}}}[{RATE}]))", legend or f"{{{{{by}}}}}"


def highest(gauge: str, by: str = "", legend: str = "") -> tuple[str, str]:
    """Return the query of a gauge that one process, or each, reports for all."""
    return f"max{f' by ({by})' if by else ''} (deltaloom_{gauge}{{{JOB}}})", legend or f"{{{{{by}}}}}"


def last_day(counter: str, matchers: str = "") -> str:
    """Return the expression of a counter's increase in 24 hours; 0 if nothing has been counted yet."""
    return f"sum(increase(deltaloom_{counter}{{{JOB}{matchers}}}[24h])) or vector(0)"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "State",
        (
            Panel(
                "Oldest entry",
                "Age of the oldest entry that is unread or pending: texts and alerts are late by as much. "
                "Normal: below a second.",
                (highest("input_oldest_seconds", legend="age"),),
                "s",
                (60, 600),
                is_number=True,
            ),
            Panel(
                "Redis",
                "Up: 1 if every process can use Redis. Misconfigured: 1 if one waits for an operator.",
                (
                    (f"min(deltaloom_redis_up{{{JOB}}})", "up"),
                    highest("redis_misconfigured", legend="misconfigured"),
                ),
                is_number=True,
            ),
            Panel(
                "Memory of Redis",
                "Used share of maxmemory. At 100 % producers cannot publish and workers acknowledge nothing.",
                (highest("redis_memory_used_ratio", legend="used"),),
                "percentunit",
                (0.8, 0.95),
                is_number=True,
            ),
            Panel(
                "Processes",
                "Programs that are scraped, by version.",
                ((f"count by (version) (deltaloom_build_info{{{JOB}}})", "{{version}}"),),
                is_number=True,
            ),
            Panel(
                "Dead letters, 24 h",
                "Entries and events that could not be processed. Normal: 0.",
                ((last_day("dead_letters_total"), "dead letters"),),
                limits=(1, 100),
                is_number=True,
            ),
            Panel(
                "Alerts undelivered, 24 h",
                "Alerts that a destination did not get, and that nobody is told of. Normal: 0.",
                ((last_day("relay_deliveries_total", ', outcome!~"delivered|retry"'), "given up"),),
                limits=(1,),
                is_number=True,
            ),
        ),
    ),
    (
        "Input",
        (
            Panel(
                "Waiting",
                "Unread entries (lag) and entries in progress (pending).",
                (highest("input_lag_entries", legend="lag"), highest("pending_entries", legend="pending")),
            ),
            Panel(
                "Age",
                "Age of the oldest entry, of the oldest pending one, and of the low-water mark. "
                "A mark that ages alone is one stuck entry.",
                (
                    highest("input_oldest_seconds", legend="oldest entry"),
                    highest("oldest_pending_seconds", legend="oldest pending"),
                    highest("low_water_age_seconds", legend="low-water mark"),
                ),
                "s",
            ),
            Panel(
                "Entries",
                "Entries a second. Claimed ones were read by another worker before.",
                (
                    rate("entries_read_total", legend="read"),
                    rate("entries_acknowledged_total", legend="acknowledged"),
                    rate("entries_claimed_total", legend="claimed"),
                ),
                "ops",
            ),
            Panel(
                "Events by type",
                "The ten most frequent types, a second.",
                ((f"topk(10, {rate('events_total', 'type')[0]})", "{{type}}"),),
                "ops",
            ),
        ),
    ),
    (
        "Latency",
        (
            Panel(
                "Input to text",
                "From the entry that closes a text to the text.",
                quantiles("input_to_text_seconds", "kind"),
                "s",
            ),
            Panel(
                "Input to alert",
                "From the entry that raises an alert to the alert.",
                quantiles("input_to_alert_seconds"),
                "s",
            ),
            Panel("Commit", "Duration of the call that stores a batch.", quantiles("commit_seconds"), "s"),
            Panel(
                "Settle", "Duration of the call that writes finished texts.", quantiles("settle_seconds"), "s"
            ),
        ),
    ),
    (
        "Workers",
        (
            Panel(
                "Busy",
                "Share of its time that a worker is busy. Above 85 % it has no reserve for a peak.",
                ((f"deltaloom_worker_busy_ratio{{{JOB}}}", "{{instance}}"),),
                "percentunit",
                highest=1,
            ),
            Panel(
                "Batch",
                "Entries of a batch. It grows with the load; at 10,000 the workers are behind.",
                quantiles("batch_entries"),
            ),
            Panel(
                "Since the last commit",
                "A worker that gets entries commits at least every few seconds.",
                ((f"time() - deltaloom_last_commit_timestamp_seconds{{{JOB}}}", "{{instance}}"),),
                "s",
            ),
            Panel(
                "Responses",
                "Open: some text is not finished. Waiting: closed, but an entry is still pending.",
                (highest("open_responses", legend="open"), highest("waiting_responses", legend="waiting")),
            ),
        ),
    ),
    (
        "Redis",
        (
            Panel(
                "Memory",
                "Used share of maxmemory, and its forecast in four hours.",
                (
                    highest("redis_memory_used_ratio", legend="now"),
                    (
                        f"max(predict_linear(deltaloom_redis_memory_used_ratio{{{JOB}}}[30m], 4 * 3600))",
                        "in four hours",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Unavailable",
                "Share of the time in which a process had no usable Redis. Normal: 0.",
                (rate("redis_unavailable_seconds_total", "instance"),),
                "percentunit",
            ),
        ),
    ),
    (
        "Relay",
        (
            Panel(
                "Backlog",
                "Alerts that wait for a destination.",
                (highest("relay_backlog", "destination"),),
            ),
            Panel(
                "Oldest alert",
                "Age of the oldest alert that waits for a destination.",
                (highest("relay_oldest_seconds", "destination"),),
                "s",
            ),
            Panel(
                "Deliveries",
                "Alerts that ended at a destination, a second, by outcome.",
                (rate("relay_deliveries_total", "destination, outcome", "{{destination}} {{outcome}}"),),
                "ops",
            ),
            Panel(
                "Paused",
                "1 while nothing is sent to a destination: it asked for a pause, is down, or is disabled.",
                (highest("relay_paused", "destination"),),
            ),
        ),
    ),
    (
        "Results and dead letters",
        (
            Panel(
                "Texts",
                "Finished texts a second, by status and integrity.",
                (rate("texts_finished_total", "status, integrity", "{{status}} {{integrity}}"),),
                "ops",
            ),
            Panel(
                "Alerts",
                "Raised alerts a second, by type and severity.",
                (rate("alerts_raised_total", "type, severity", "{{type}} {{severity}}"),),
                "ops",
            ),
            Panel(
                "Dead letters",
                "Dead letters a second, by reason. Normal: none.",
                (rate("dead_letters_total", "reason"),),
                "ops",
            ),
            Panel(
                "Oddities",
                "A second: entries that another program trimmed, events that producers dropped, deltas after "
                "the end of their text, fields that cannot be used.",
                (
                    rate("entries_lost_total", legend="lost entries"),
                    rate("producer_lost_events_total", legend="lost by producers"),
                    rate("late_events_total", legend="late deltas"),
                    rate("ignored_fields_total", legend="ignored fields"),
                ),
                "ops",
            ),
            Panel(
                "Counts in Redis",
                "A second, as the scripts count them: exact after a kill, by name.",
                (rate("stored_counts_total", "count"),),
                "ops",
            ),
        ),
    ),
    (
        "Heartbeat and traces",
        (
            Panel(
                "Heartbeat",
                "Seconds since the last one, and the latency at each destination; empty without "
                "`deltaloom alerts heartbeat --textfile`.",
                (
                    ("time() - max(deltaloom_heartbeat_last_success_timestamp_seconds)", "age"),
                    ("max by (destination) (deltaloom_heartbeat_latency_seconds)", "{{destination}}"),
                ),
                "s",
            ),
            Panel(
                "Spans of traces",
                "A second, by outcome; empty without traces. Normal: only exported ones.",
                (rate("trace_spans_total", "outcome"),),
                "ops",
            ),
        ),
    ),
    (
        "Taps",
        (
            Panel(
                "Requests",
                "Requests a second by outcome. Normal: `passed`, and some clients that leave.",
                (rate("tap_requests_total", "upstream, outcome", "{{upstream}} {{outcome}}"),),
                "ops",
            ),
            Panel(
                "Under way",
                "Requests under way, and connections a second that were refused.",
                (
                    highest("tap_open_requests", "instance"),
                    rate("tap_connections_refused_total", legend="refused"),
                ),
            ),
            Panel(
                "Bytes",
                "Bytes of bodies a second. What comes from upstreams goes to clients.",
                (rate("tap_bytes_total", "way"),),
                "Bps",
            ),
            Panel(
                "Copied bytes",
                "Bytes a second that were sent to the copier, or dropped. Normal: `sent` alone.",
                (rate("tap_copy_bytes_total", "end"), highest("tap_copy_waiting_bytes", legend="waiting")),
                "Bps",
            ),
            Panel(
                "Copies",
                "Copies a second by end, and restarts of the copier. Normal: only `begun` and `no_stream`.",
                (rate("tap_copies_total", "end"), rate("tap_copier_restarts_total", legend="restarts")),
                "ops",
            ),
            Panel(
                "Events of copies",
                "Events a second by end, and those that wait for Redis. Normal: none dropped.",
                (rate("tap_events_total", "end"), highest("tap_waiting_events", legend="waiting")),
                "ops",
            ),
        ),
    ),
    (
        "Archive",
        (
            Panel(
                "Not archived",
                "Age of the oldest output that is not archived. Normal: below a second.",
                (highest("archive_oldest_seconds", legend="age"),),
                "s",
            ),
            Panel(
                "Waiting outputs",
                "Entries that are not archived, without unread ones of streams from which some were deleted.",
                (highest("archive_waiting_entries", legend="waiting"),),
            ),
            Panel(
                "Archived",
                "Entries a second by outcome. Normal: `new`, and `repeated` after a crash.",
                (rate("archive_entries_total", "outcome"),),
                "ops",
            ),
            Panel(
                "Database",
                "Duration of the transaction that archives a batch, and 1 while the database answers.",
                (
                    *quantiles("archive_commit_seconds"),
                    (f"min(deltaloom_archive_database_up{{{JOB}}})", "up"),
                ),
            ),
        ),
    ),
    (
        "Consoles",
        (
            Panel(
                "Pages",
                "Pages that watch, and requests a second by status. Normal: only 2xx and 3xx.",
                (highest("console_streams", "instance"), rate("console_requests_total", "asked_for, status")),
            ),
            Panel(
                "Reading",
                "Entries a second that were read for pages, and skips. Normal: nothing is skipped.",
                (
                    rate("console_entries_total", legend="entries"),
                    rate("console_skips_total", legend="skips"),
                ),
                "ops",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(_row(title, top, len(panels) + 1))
        top += 1
        height = 5 if row[0].is_number else 8
        width = WIDTH // len(row)
        for column, panel in enumerate(row):
            place = {"h": height, "w": width, "x": column * width, "y": top}
            panels.append({**_panel(panel), "id": len(panels) + 1, "gridPos": place})
        top += height
    return {
        "uid": "deltaloom",
        "title": "deltaloom",
        "description": "docs/runbooks.md says what to do when an alert fires.",
        "tags": ["deltaloom"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def expressions() -> list[str]:
    """Return the expressions of all panels."""
    return [expression for _, row in ROWS for panel in row for expression, _ in panel.queries]


def _variables() -> list[dict[str, Any]]:
    query = "label_values(deltaloom_build_info, job)"
    job = {
        "name": "job",
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "job"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [{"name": "datasource", "type": "datasource", "query": "prometheus"}, job]


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
    return {"type": "row", "id": number, "title": title, "collapsed": False, "panels": [], "gridPos": place}


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.highest is not None:
        defaults["max"] = panel.highest
    if panel.limits:
        steps = [
            {"color": colour, "value": value}
            for colour, value in zip(_GREEN_TO_RED, (None, *panel.limits), strict=False)
        ]
        defaults["color"] = {"mode": "thresholds"}
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if panel.is_number:
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return {
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "range": not panel.is_number,
                "instant": panel.is_number,
            }
            for number, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
