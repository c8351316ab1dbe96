"""Test the formats of metrics."""

from __future__ import annotations

import pytest

from service.observability.metrics.exposition import OPEN_METRICS, exposition

UP = "deltaloom_redis_up 1.0"


@pytest.mark.parametrize(
    "odd",
    [
        "text/plain; version=x",
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=1.0.0.\udcff",
        "application/openmetrics-text; version=\u00b2",
    ],
)
def test_an_odd_header_gets_plain_text(odd: str) -> None:
    """Anybody who reaches the port may send one: it is no error of the program, and fills no log."""
    text, media_type = exposition({"redis_up": {(): 1}}, odd)
    assert media_type.startswith("text/plain")
    assert UP in text.decode().splitlines()


def test_open_metrics_are_sent_to_those_who_accept_them() -> None:
    """Exemplars need this format."""
    text, media_type = exposition({"redis_up": {(): 1}}, OPEN_METRICS)
    assert media_type.startswith("application/openmetrics-text")
    assert UP in text.decode().splitlines()
