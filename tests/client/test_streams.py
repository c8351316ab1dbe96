"""Test names of streams and keys, and the choice of a partition."""

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
    """Compute known partitions, which producers in other languages rely on."""
    assert partition_of(response_id, 2) == of_2
    assert partition_of(response_id, 16) == of_16


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 1024))
def test_partition_is_crc32(response_id: str, partitions: int) -> None:
    """Compute the partition as CRC-32 modulo the number of partitions."""
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
    """Name streams and keys as the contract does."""
    assert names.deltas == f"{before}deltas"
    assert names.assembled == f"{before}assembled"
    assert names.alerts == f"{before}alerts"
    assert names.dead_letters == f"{before}dead-letters"
    assert names.item("resp_1", 2) == f"{before}item:resp_1:2"


def test_no_braces_without_partitions() -> None:
    """Write a hash tag only with partitions. Otherwise keys would be in different slots."""
    assert "{" not in StreamNames().name("x")
    assert StreamNames(partition=3).name("x").count("{3}") == 1


def test_group_is_that_of_the_contract() -> None:
    """Name the consumer group as the contract does."""
    assert GROUP == "deltaloom"


def test_without_partitions_there_is_one() -> None:
    """Use the names without a partition if there are no partitions."""
    assert Partitions(prefix="other").of("resp_1") == StreamNames("other")
    assert Partitions().all == (StreamNames(),)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 64))
def test_a_response_is_in_the_partition_of_its_id(response_id: str, count: int) -> None:
    """Assign a response to the partition of its id."""
    partitions = Partitions(count)
    names = partitions.of(response_id)
    assert names.partition == partition_of(response_id, count)
    assert names in partitions.all
    assert [each.partition for each in partitions.all] == list(range(count))


def test_a_single_partition_has_a_hash_tag() -> None:
    """Write a hash tag for a single partition too, so that a deployment can grow later."""
    assert Partitions(1).all == (StreamNames(partition=0),)


def test_a_negative_number_of_partitions_is_refused() -> None:
    """Refuse a negative number of partitions."""
    with pytest.raises(ValueError, match="-1 partitions"):
        Partitions(-1)
