"""Write metrics in the text format of Prometheus, or in OpenMetrics, which has exemplars."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar as TextExemplar

from service.observability.metrics.catalog import METRICS
from service.observability.metrics.samples import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

    from service.observability.metrics.catalog import Metric
    from service.observability.metrics.samples import Samples

_Bucket = tuple[str, float] | tuple[str, float, TextExemplar]

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
"""Media type that a program accepts to get OpenMetrics."""


class _Collected:
    """The registry that prometheus-client's encoders read."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that the samples have, if only by name, in the order of the catalog."""
        for metric in METRICS:
            if metric.name in self._samples:
                yield _family(metric, self._samples)


def exposition(samples: Samples, accept: str = "") -> tuple[bytes, str]:
    """Return the text of these metrics and its media type, which `accept` of the request chooses."""
    encode, content_type = _encoder(accept)
    return encode(_Collected(samples)), content_type


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return the encoder of the format that a header asks for; that of plain text for an odd header."""
    try:
        return choose_encoder(accept if accept.isascii() else "")
    except TypeError:  # prometheus-client compares a version that is no number
        return choose_encoder("")


def _family(metric: Metric, samples: Samples) -> Family:
    name, about, labels = metric.full_name, metric.about, metric.labels
    values = sorted(samples[metric.name].items())
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, about, labels=labels)
        for of_labels, value in values:
            assert isinstance(value, Distribution)  # noqa: S101 - by the metric's type
            histogram.add_metric(of_labels, _buckets(metric, value), value.sum)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        family = CounterMetricFamily(name.removesuffix("_total"), about, labels=labels)
    else:
        family = GaugeMetricFamily(name, about, labels=labels)
    for of_labels, value in values:
        assert not isinstance(value, Distribution)  # noqa: S101 - by the metric's type
        family.add_metric(of_labels, value)
    return family


def _buckets(metric: Metric, value: Distribution) -> list[_Bucket]:
    """Return the buckets as cumulative counts by upper bound, with their exemplars."""
    buckets: list[_Bucket] = []
    bounds = [*map(str, metric.bounds), "+Inf"]
    for number, (bound, count) in enumerate(zip(bounds, accumulate(value.counts), strict=True)):
        found = value.exemplars.get(number)
        if found is None:
            buckets.append((bound, count))
        else:
            exemplar = TextExemplar({"trace_id": found.trace_id}, found.value, found.at)
            buckets.append((bound, count, exemplar))
    return buckets
