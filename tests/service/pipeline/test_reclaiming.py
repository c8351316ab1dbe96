"""Test which entries a worker takes over from others, and in which portions."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from service.pipeline.batch_builder import BatchBuilder
from service.pipeline.decoded_batch import Rules
from service.pipeline.reclaiming import Reclaimer, is_gone
from service.ports.storage import Beginning, Claim, RawEntry, StorageUnavailableError
from service.retrying import RetryUntilAvailable
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from service.pipeline.decode import Unreadable
    from service.pipeline.processing import BatchProcessor
    from service.ports.storage import Group


def ended_process() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_former_process_of_this_host_is_gone() -> None:
    """Detect an ended process of this host. Otherwise a restart would wait for the claim time."""
    assert is_gone(f"host-{ended_process()}-0a1b2c", f"host-{os.getpid()}-d4e5f6")


def test_a_predecessor_with_the_same_process_id_is_gone() -> None:
    """Detect a predecessor with the same process id, as in a container, where a worker is process 1."""
    assert is_gone("pod-1-0a1b2c", "pod-1-d4e5f6")


@pytest.mark.parametrize(
    "name",
    [
        f"host-{os.getppid()}-0a1b2c",
        f"other-{2**22 - 1}-0a1b2c",
        f"host-{os.getpid()}-d4e5f6",
        "named-by-an-operator",
        f"host-{10**30}-0a1b2c",
    ],
    ids=["alive", "another host", "itself", "given", "no process id"],
)
def test_a_consumer_that_may_be_alive_keeps_its_entries(name: str) -> None:
    """Leave entries with a consumer that may be alive. Otherwise two workers would process them twice."""
    assert not is_gone(name, f"host-{os.getpid()}-d4e5f6")


MAX_DELIVERIES = 4
SETTINGS = Settings(consumer="host-1-0a1b2c", claim_time=2.5, max_deliveries=MAX_DELIVERIES)


class OrphanedGroup:
    """A group with entries of other consumers, which records the calls."""

    def __init__(self, *claims: Claim, left_by: dict[str, list[dict[str, int]]] | None = None) -> None:
        self.claims = [*claims]
        self.left_by = left_by or {}
        self.calls: list[tuple[object, ...]] = []
        self.removed: list[str] = []
        self.trimmed: set[str] = set()
        self.huge: set[str] = set()
        """Entries that cannot be delivered in time."""

    async def consumers(self) -> list[str]:
        """Return the consumers with pending entries."""
        return [*self.left_by]

    async def adopt(self, gone: str) -> dict[str, int]:
        """Return the next portion of entries that a consumer left."""
        self.calls.append(("adopt", gone))
        return self.left_by[gone].pop(0) if self.left_by[gone] else {}

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Return the next prepared claim, or raise StorageUnavailableError when none is left."""
        self.calls.append(("claim", idle_ms, cursor))
        if not self.claims:
            raise StorageUnavailableError("away")
        return self.claims.pop(0)

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
        """Return these entries."""
        self.calls.append(("deliver", [*entry_ids], deliveries))
        if self.huge & set(entry_ids):
            raise StorageUnavailableError("TimeoutError")
        return [RawEntry(entry.encode(), [b"event", b"{}"]) for entry in entry_ids]

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Return this entry, or None if it is trimmed."""
        self.calls.append(("look at", entry_id, at_most))
        if entry_id in self.huge:
            return Beginning.of(entry_id.encode(), [b"event", b"x" * (at_most + 1)], 10 * at_most)
        return None if entry_id in self.trimmed else RawEntry(entry_id.encode(), [b"event", b"{}"])

    async def renew(self, entry_ids: Collection[bytes]) -> None:
        """Record the renewal of these entries."""
        self.calls.append(("renew", set(entry_ids)))

    async def remove_idle_consumers(self, idle_ms: int) -> list[str]:
        """Return the prepared names of removed consumers."""
        self.calls.append(("remove_idle_consumers", idle_ms))
        return self.removed


class RecordingWorker:
    """A worker that records its batches, its dead letters and the entries that it holds at that time."""

    replication_id = "history"
    max_entry_bytes = 77

    def __init__(self, *in_progress: bytes) -> None:
        self.in_progress = {*in_progress}
        self.taken: list[tuple[list[bytes], Mapping[bytes, int]]] = []
        self.read_from: list[str] = []
        """Replication id of each batch."""
        self.dead_letters: list[tuple[bytes, int, Unreadable, str]] = []
        self.held: list[set[bytes]] = []

    def builder(self) -> BatchBuilder:
        """Return an empty builder."""
        return BatchBuilder(Rules(frozenset(), frozenset(), 1000, 1), 1000, self.replication_id)

    @contextmanager
    def marked_in_progress(self, entry_ids: Collection[bytes]) -> Iterator[None]:
        """Hold these entries for the duration of the block."""
        self.in_progress |= set(entry_ids)
        yield
        self.in_progress -= set(entry_ids)

    async def process(self, builder: BatchBuilder, deliveries: Mapping[bytes, int]) -> None:
        """Record a batch."""
        self.taken.append(([*builder.ids], deliveries))
        self.read_from.append(builder.replication_id)
        self.held.append({*self.in_progress})

    async def dead_letter(
        self, entry: RawEntry, deliveries: int, why: Unreadable, replication_id: str
    ) -> None:
        """Record a dead letter."""
        self.dead_letters.append((entry.id, deliveries, why, replication_id))
        self.held.append({*self.in_progress})


def reclaimer(group: OrphanedGroup, worker: RecordingWorker) -> Reclaimer:
    """Return a reclaimer of this group's entries for this worker."""
    return Reclaimer(cast("Group", group), cast("BatchProcessor", worker), SETTINGS, RetryUntilAvailable())


def claimed(deliveries: dict[str, int], cursor: str = "0-0", lost: Sequence[str] = ()) -> Claim:
    """Return a claim with these results."""
    return Claim(cursor, lost, deliveries)


async def test_entries_that_were_delivered_once_go_as_one_batch() -> None:
    """Process entries with one delivery as a batch.

    Otherwise each deployment would process thousands singly.
    """
    group, worker = OrphanedGroup(claimed({"1-0": 1, "2-0": 1})), RecordingWorker()
    await reclaimer(group, worker).reclaim()
    assert group.calls == [("claim", 2500, "0-0"), ("deliver", ["1-0", "2-0"], 2)]
    assert worker.taken == [([b"1-0", b"2-0"], {b"1-0": 2, b"2-0": 2})]
    assert worker.dead_letters == []


async def test_an_entry_that_is_never_delivered_in_time_holds_up_no_other() -> None:
    """Deliver the others one by one, and give up the huge one. Otherwise all wait for it without end."""
    group, worker = OrphanedGroup(claimed({"1-0": 1, "2-0": 1, "3-0": 1, "4-0": 1})), RecordingWorker()
    group.huge, group.trimmed = {"2-0"}, {"3-0"}
    await reclaimer(group, worker).reclaim()
    assert [call[0:2] for call in group.calls[1:]] == [
        ("deliver", ["1-0", "2-0", "3-0", "4-0"]),
        ("look at", "1-0"),
        ("deliver", ["1-0"]),
        ("look at", "2-0"),
        ("look at", "3-0"),
        ("look at", "4-0"),
        ("deliver", ["4-0"]),
    ]
    assert [ids for ids, _ in worker.taken] == [[b"1-0"], [b"2-0"], [b"4-0"]]


@pytest.mark.parametrize("huge", [set(), {"2-0"}], ids=["together", "one by one"])
async def test_a_failover_while_entries_are_delivered_is_noticed(huge: set[str]) -> None:
    """Take entries as read from the data before it. Otherwise those that it loses would have effects."""

    class FailingOver(OrphanedGroup):
        async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
            delivered = await super().deliver(entry_ids, deliveries)
            worker.replication_id = "after the failover"
            return delivered

    group, worker = FailingOver(claimed({"1-0": 1, "2-0": 1})), RecordingWorker()
    group.huge = huge
    await reclaimer(group, worker).reclaim()
    assert worker.read_from[0] == "history"


async def test_entries_that_were_delivered_more_often_go_one_by_one() -> None:
    """Process entries with more deliveries singly, since one of them may kill its reader."""
    group, worker = OrphanedGroup(claimed({"1-0": 2, "2-0": 1, "3-0": 3})), RecordingWorker()
    await reclaimer(group, worker).reclaim()
    assert group.calls[1:] == [("deliver", ["2-0"], 2), ("deliver", ["1-0"], 3), ("deliver", ["3-0"], 4)]
    assert [ids for ids, _ in worker.taken] == [[b"2-0"], [b"1-0"], [b"3-0"]]
    assert all(deliveries == {b"1-0": 3, b"2-0": 2, b"3-0": 4} for _, deliveries in worker.taken), (
        "a dead letter includes this delivery in its count"
    )


@pytest.mark.parametrize("deliveries", [MAX_DELIVERIES, MAX_DELIVERIES + 1])
async def test_an_entry_at_the_limit_becomes_a_dead_letter_without_another_delivery(deliveries: int) -> None:
    """Make the dead letter without a further delivery, which could kill another worker."""
    group, worker = OrphanedGroup(claimed({"1-0": deliveries})), RecordingWorker()
    await reclaimer(group, worker).reclaim()
    assert group.calls[1:] == [("look at", "1-0", 77)]
    ((entry, before, why, replication_id),) = worker.dead_letters
    assert (entry, before, replication_id) == (b"1-0", deliveries, "history")
    assert why.reason == "max_deliveries"
    assert f"delivered {MAX_DELIVERIES} times" in why.error
    assert worker.taken == []


async def test_an_entry_at_the_limit_that_is_trimmed_holds_up_no_other() -> None:
    """Skip a trimmed entry at the delivery limit."""
    group, worker = OrphanedGroup(claimed({"1-0": MAX_DELIVERIES, "2-0": MAX_DELIVERIES})), RecordingWorker()
    group.trimmed = {"1-0"}
    await reclaimer(group, worker).reclaim()
    assert [entry for entry, *_ in worker.dead_letters] == [b"2-0"]


async def test_claimed_entries_are_held_until_processed() -> None:
    """Hold all claimed entries until they are processed.

    Otherwise another worker would claim the last ones.
    """
    worker = RecordingWorker()
    await reclaimer(OrphanedGroup(claimed({"1-0": 1, "2-0": 2, "3-0": MAX_DELIVERIES})), worker).reclaim()
    assert worker.held == [{b"1-0", b"2-0", b"3-0"}] * 3
    assert worker.in_progress == set()


async def test_entries_in_hand_are_not_claimed_again() -> None:
    """Skip entries that the worker already holds. Otherwise it would process its own batch twice."""
    group, worker = OrphanedGroup(claimed({"1-0": 1, "2-0": 1})), RecordingWorker(b"1-0")
    await reclaimer(group, worker).reclaim()
    assert [ids for ids, _ in worker.taken] == [[b"2-0"]]
    nothing_else = OrphanedGroup(claimed({"1-0": 1}))
    await reclaimer(nothing_else, worker).reclaim()
    assert len(nothing_else.calls) == 1


async def test_a_claim_goes_on_until_all_has_been_looked_at() -> None:
    """Claim until the cursor is back at the start. Otherwise a round would take over only 500 entries."""
    group = OrphanedGroup(claimed({}, "5-0"), claimed({}, "9-0"), claimed({}), claimed({}))
    one = reclaimer(group, RecordingWorker())
    await one.reclaim()
    assert group.calls == [("claim", 2500, "0-0"), ("claim", 2500, "5-0"), ("claim", 2500, "9-0")]
    await one.reclaim()
    assert group.calls[3:] == [("claim", 2500, "0-0")]


async def test_a_claim_that_was_interrupted_goes_on_where_it_was() -> None:
    """Continue an interrupted claim at its cursor.

    Otherwise the first entries would be claimed again and again.
    """
    group = OrphanedGroup(claimed({}, "5-0"))
    one = reclaimer(group, RecordingWorker())
    with pytest.raises(StorageUnavailableError):
        await one.reclaim()
    group.claims.append(claimed({}))
    await one.reclaim()
    assert group.calls[-1] == ("claim", 2500, "5-0")


async def test_lost_entries_are_reported_with_the_first_and_the_last() -> None:
    """Log an error with the number of lost entries, the first and the last."""
    with capture_logs() as lines:
        await reclaimer(
            OrphanedGroup(claimed({}, lost=["1-0", "2-0", "3-0"]), claimed({})), RecordingWorker()
        ).reclaim()
    (line,) = lines
    assert line["event"] == "entries trimmed before processing"
    assert (line["entries"], line["first_entry"], line["last_entry"]) == (3, "1-0", "3-0")
    assert line["log_level"] == "error"


async def test_entries_of_dead_predecessors_are_adopted_at_once() -> None:
    """Adopt only entries of consumers that are surely dead, without waiting for the claim time."""
    own = SETTINGS.consumer
    group = OrphanedGroup(
        left_by={
            own: [{"1-0": 1}, {"2-0": 2}],
            "host-1-d4e5f6": [{"3-0": 1}],
            "elsewhere-1-d4e5f6": [{"4-0": 1}],
            "named": [{"5-0": 1}],
        }
    )
    worker = RecordingWorker()
    with capture_logs() as lines:
        await reclaimer(group, worker).adopt()
    assert [ids for ids, _ in worker.taken] == [[b"1-0"], [b"2-0"], [b"3-0"]]
    assert [call[1] for call in group.calls if call[0] == "adopt"] == [own] * 3 + ["host-1-d4e5f6"] * 2
    assert [(line["from_consumer"], line["entries"]) for line in lines] == [
        (own, 1),
        (own, 1),
        ("host-1-d4e5f6", 1),
    ]


async def test_only_entries_in_hand_are_renewed() -> None:
    """Renew the entries in hand, and send no command if there are none."""
    group, worker = OrphanedGroup(), RecordingWorker()
    one = reclaimer(group, worker)
    await one.renew()
    assert group.calls == []
    worker.in_progress = {b"1-0"}
    await one.renew()
    assert group.calls == [("renew", {b"1-0"})]


@pytest.mark.parametrize("removed", [[], ["host-7-0a1b2c"]])
async def test_consumers_are_removed_after_twenty_claim_times(removed: list[str]) -> None:
    """Remove consumers after 20 claim times.

    Otherwise a brief outage would remove a live worker's consumer.
    """
    group = OrphanedGroup()
    group.removed = removed
    with capture_logs() as lines:
        await reclaimer(group, RecordingWorker()).remove_idle_consumers()
    assert group.calls == [("remove_idle_consumers", 50_000)]
    assert [line["consumers"] for line in lines] == ([removed] if removed else [])
