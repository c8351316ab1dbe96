"""Test how the JSON of an array is cut into its elements."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.arrays import TooMuchStructureError, elements_of, split_array
from tests.service.pipeline.test_decode import json_values


@given(st.lists(json_values, min_size=1, max_size=5), st.sampled_from([None, 1]))
def test_elements_are_those_of_the_array(values: list[Any], indent: int | None) -> None:
    """Cut at the elements' ends. Otherwise an event would be lost or joined with its neighbour."""
    raws = split_array(json.dumps(values, indent=indent).encode(), len(values))
    assert raws is not None
    assert [repr(json.loads(raw)) for raw in raws] == [repr(value) for value in values]
    assert elements_of(json.dumps(values, indent=indent).encode(), len(values)) == raws


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'"[]"', b"[", b"[1", b"[1}", b"[1]]", b'["1]', b'["1\\"]', b"[1]x"]
)
def test_incomplete_array_is_refused(body: bytes) -> None:
    """Refuse a body that is not a complete array. Otherwise a truncated event would be read as whole."""
    assert split_array(body, 10) is None
    assert elements_of(body, 10) is None


@given(st.binary(max_size=40), st.text('[]{}",\\ 1', max_size=40))
def test_no_bytes_stop_it(body: bytes, text: str) -> None:
    """Accept any bytes. Otherwise an entry could stop the worker."""
    for each in (body, text.encode(), b"[" + text.encode() + b"]"):
        raws = split_array(each, 100)
        assert raws is None or all(raw in each for raw in raws)


@pytest.mark.parametrize("unit", [b"a", b'""', b'"', b'\\"', b'"",', b"[", b"[],", b"\\", b"\\\\"])
def test_cutting_is_a_single_pass(unit: bytes) -> None:
    """Cut in a single pass. Otherwise a megabyte could block a worker for hours, and this test with it."""
    for body in (b'["' + unit * 100_000, b"[" + unit * 100_000 + b"]"):
        with suppress(TooMuchStructureError):
            split_array(body, 200_000)
