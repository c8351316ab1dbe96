"""The metrics that rules and dashboard may use, with their labels, and the names in a PromQL expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import promql_parser

from service.observability.metrics import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRAPED = {"instance", "job", "namespace", "pod"}
"""Labels that Prometheus adds."""

METRICS: dict[str, set[str]] = {
    **{metric.name: set(metric.labels) for metric in catalog.METRICS},
    "heartbeat_last_success_timestamp_seconds": set(),
    "heartbeat_latency_seconds": {"destination"},
}
"""Labels by name, without the prefix `deltaloom_`. The last two are from `deltaloom alerts heartbeat`."""

OF_PROMETHEUS = {"up"}
"""Metrics that Prometheus itself adds for each target."""

HISTOGRAMS = {metric.name for metric in catalog.METRICS if metric.kind == "histogram"}


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of an expression, without the prefix, with the labels that its matchers name.

    Raises:
        ValueError: the expression is not PromQL.
    """
    yield from _within(promql_parser.parse(expression))


def _within(node: Any) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name or "", {each.name for each in node.matchers.matchers}
    for attribute in ("expr", "lhs", "rhs", "vector_selector"):
        inner = getattr(node, attribute, None)
        if inner is not None:
            yield from _within(inner)
    for inner in getattr(node, "args", None) or ():
        yield from _within(inner)


def unknown(expression: str) -> list[str]:
    """Return the metrics and labels of an expression that the program does not have."""
    found = []
    for metric, labels in selectors(expression):
        if metric in OF_PROMETHEUS and labels <= SCRAPED:
            continue
        name = metric.removeprefix("deltaloom_")
        base = name
        allowed = SCRAPED
        for suffix in ("_bucket", "_sum", "_count"):
            if name.removesuffix(suffix) in HISTOGRAMS:
                base = name.removesuffix(suffix)
                allowed = SCRAPED | ({"le"} if suffix == "_bucket" else set())
        if base == metric or base not in METRICS or (base == name and base in HISTOGRAMS):
            found.append(metric)
        else:
            found += [f"{metric}{{{label}}}" for label in labels - METRICS[base] - allowed]
    return found
