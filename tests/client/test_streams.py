"""Names of streams and keys, and the choice of a partition."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.streams import GROUP, Partitions, StreamNames, partition_of


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


def test_without_partitions_there_is_one() -> None:
    """A producer that is told of no partitions would write to names that nobody reads."""
    assert Partitions(prefix="other").of("resp_1") == StreamNames("other")
    assert Partitions().all == (StreamNames(),)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 64))
def test_a_response_is_in_the_partition_of_its_id(response_id: str, count: int) -> None:
    """A response would be published where no worker, or no subscriber, looks for it."""
    partitions = Partitions(count)
    names = partitions.of(response_id)
    assert names.partition == partition_of(response_id, count)
    assert names in partitions.all
    assert [each.partition for each in partitions.all] == list(range(count))


def test_one_partition_is_not_none() -> None:
    """A deployment that begins with one partition, to grow later, would have keys in many slots."""
    assert Partitions(1).all == (StreamNames(partition=0),)


def test_fewer_than_none() -> None:
    """A wrong number would show as a stream that nobody reads."""
    with pytest.raises(ValueError, match="-1 partitions"):
        Partitions(-1)
