"""Test that the measurement of a tap's delay runs, and compares all three ways."""

from __future__ import annotations

import argparse

import pytest

from bench.tap_delays import measure


@pytest.mark.slow
async def test_a_short_measurement_has_lines_for_each_way() -> None:
    """Measure two streams directly, through the plain proxy and through a tap."""
    lines = await measure(argparse.Namespace(pairs=1, streams=2, rate=20, seconds=0.2))
    names = [line.split(", p")[0] for line in lines[1:]]
    ways = ("direct", "plain aiohttp", "tap", "tap / plain")
    assert names == [way for way in ways for _ in ("p50", "p99")]
