"""Values of metrics at one time, and their sum over several processes.

Values are plain data, so that a process can send them to its parent as JSON.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from service.observability.metrics.catalog import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from service.observability.metrics.catalog import Metric, Together


class Exemplar(NamedTuple):
    """An observation with a known trace."""

    trace_id: str
    value: float
    at: float
    """Time in seconds since the epoch."""


class Distribution(NamedTuple):
    """The observations of a histogram."""

    counts: list[int]
    """Number of observations by bucket, the infinite one last; not cumulative."""
    sum: float
    exemplars: dict[int, Exemplar]
    """The latest exemplar by bucket."""


if TYPE_CHECKING:
    Values: TypeAlias = Mapping[tuple[str, ...], float | Distribution]
    """Values by the values of the labels."""
    Samples: TypeAlias = dict[str, Values]
    """Values by the metric's name without the prefix."""


class Histogram:
    """A histogram that is being filled.

    Args:
        metric: gives the bounds of the buckets.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, metric: Metric) -> None:
        self._bounds = metric.bounds
        self._counts = [0] * (len(metric.bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Add an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_traced(self, exemplar: Exemplar) -> None:
        """Add an observation with a known trace."""
        self.observe(exemplar.value)
        self._exemplars[bisect_left(self._bounds, exemplar.value)] = exemplar

    def distribution(self) -> Distribution:
        """Return the observations so far."""
        return Distribution([*self._counts], self._sum, {**self._exemplars})


def to_json(samples: Samples) -> bytes:
    """Return samples as JSON, for another process of the same version."""
    listed = {name: [(labels, value) for labels, value in values.items()] for name, values in samples.items()}
    return json.dumps(listed).encode()


def from_json(data: bytes) -> Samples:
    """Return the samples that `to_json` has written."""
    return {
        name: {tuple(labels): _from_json(value) for labels, value in values}
        for name, values in json.loads(data).items()
    }


def _from_json(value: Any) -> float | Distribution:
    if not isinstance(value, list):
        return float(value)
    counts, total, exemplars = value
    return Distribution(counts, total, {int(bucket): Exemplar(*each) for bucket, each in exemplars.items()})


_JOIN: Mapping[Together, Callable[[list[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "mean": fmean,
}


def together(all_samples: Iterable[Samples]) -> Samples:
    """Return the samples of several processes as those of one."""
    found: dict[str, dict[tuple[str, ...], list[float | Distribution]]] = {}
    for samples in all_samples:
        for name, values in samples.items():
            found.setdefault(name, {})
            for labels, value in values.items():
                found[name].setdefault(labels, []).append(value)
    return {
        name: {labels: _joined(BY_NAME[name], values) for labels, values in by_labels.items()}
        for name, by_labels in found.items()
    }


def _joined(metric: Metric, values: list[float | Distribution]) -> float | Distribution:
    numbers = [value for value in values if not isinstance(value, Distribution)]
    if numbers:
        return float(_JOIN[metric.together](numbers))
    distributions = [value for value in values if isinstance(value, Distribution)]
    exemplars: dict[int, Exemplar] = {}
    for each in distributions:
        for bucket, exemplar in each.exemplars.items():
            if bucket not in exemplars or exemplars[bucket].at < exemplar.at:
                exemplars[bucket] = exemplar
    return Distribution(
        [sum(counts) for counts in zip(*(each.counts for each in distributions), strict=True)],
        sum(each.sum for each in distributions),
        exemplars,
    )
