"""Names of streams and keys, and the choice of a partition."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.streams import GROUP, StreamNames, partition_of


@pytest.mark.parametrize(
    ("response_id", "of_2", "of_16"),
    [("", 0, 0), ("resp_1", 1, 7), ("123456789", 0, 6), ("é", 0, 14), ("resp_😀", 1, 7)],
)
def test_partition_of_known_values(response_id: str, of_2: int, of_16: int) -> None:
    """A producer in another language would write to a partition that nobody expects."""
    assert partition_of(response_id, 2) == of_2
    assert partition_of(response_id, 16) == of_16


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 1024))
def test_partition_is_crc32(response_id: str, partitions: int) -> None:
    """The events of a response would be spread over partitions, or its partition would not exist."""
    partition = partition_of(response_id, partitions)
    assert partition == zlib.crc32(response_id.encode("utf-8")) % partitions
    assert 0 <= partition < partitions


@pytest.mark.parametrize(
    ("names", "before"),
    [
        (StreamNames(), "deltaloom:"),
        (StreamNames("other"), "other:"),
        (StreamNames(partition=0), "deltaloom:{0}:"),
        (StreamNames("other", 12), "other:{12}:"),
    ],
)
def test_names_are_those_of_the_contract(names: StreamNames, before: str) -> None:
    """Producers and subscribers would look at other streams than the worker."""
    assert names.deltas == f"{before}deltas"
    assert names.assembled == f"{before}assembled"
    assert names.alerts == f"{before}alerts"
    assert names.dead_letters == f"{before}dead-letters"
    assert names.item("resp_1", 2) == f"{before}item:resp_1:2"


def test_no_braces_without_partitions() -> None:
    """The keys of one partition would lie in slots of their own."""
    assert "{" not in StreamNames().name("x")
    assert StreamNames(partition=3).name("x").count("{3}") == 1


def test_group_is_that_of_the_contract() -> None:
    """Whoever watches the consumer group would not find it."""
    assert GROUP == "deltaloom"
