"""Tests of what a worker takes over from others, and in which portions."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from service.patience import Patience
from service.pipeline.gathering import Gathering, Rules
from service.pipeline.reclaiming import Reclaimer, is_gone
from service.ports.storage import Claim, RawEntry, StorageUnavailableError
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from service.pipeline.decode import Unreadable
    from service.pipeline.worker import Worker
    from service.ports.storage import Group


def ended_process() -> int:
    """The id of a process that ran and is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_former_process_of_this_host_is_gone() -> None:
    """A worker that is started again would wait for the claim time, with its own entries in sight."""
    assert is_gone(f"host-{ended_process()}-0a1b2c", f"host-{os.getpid()}-d4e5f6")


def test_the_same_process_id_under_another_name_is_gone() -> None:
    """In a container a worker is always process 1: its predecessor had that id, and cannot live."""
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
def test_who_may_be_alive_keeps_its_entries(name: str) -> None:
    """Two live workers that take each other's entries would do everything twice."""
    assert not is_gone(name, f"host-{os.getpid()}-d4e5f6")


MAX_DELIVERIES = 4
SETTINGS = Settings(consumer="host-1-0a1b2c", claim_time=2.5, max_deliveries=MAX_DELIVERIES)


class Left:
    """A group in which others have left entries; notes what is asked of it."""

    def __init__(self, *claims: Claim, left_by: dict[str, list[dict[str, int]]] | None = None) -> None:
        self.claims = [*claims]
        self.left_by = left_by or {}
        self.asked: list[tuple[object, ...]] = []
        self.removed: list[str] = []
        self.trimmed: set[str] = set()

    async def consumers(self) -> list[str]:
        """Return who has left something."""
        return [*self.left_by]

    async def inherit(self, gone: str) -> dict[str, int]:
        """Return the next of what a consumer has left."""
        self.asked.append(("inherit", gone))
        return self.left_by[gone].pop(0) if self.left_by[gone] else {}

    async def claim(self, idle_ms: int, cursor: str) -> Claim:
        """Return the next of what was left too long ago; unavailable if there is none."""
        self.asked.append(("claim", idle_ms, cursor))
        if not self.claims:
            raise StorageUnavailableError("away")
        return self.claims.pop(0)

    async def deliver(self, entry_ids: Sequence[str], deliveries: int) -> list[RawEntry]:
        """Return these entries."""
        self.asked.append(("deliver", [*entry_ids], deliveries))
        return [RawEntry(entry.encode(), [b"event", b"{}"]) for entry in entry_ids]

    async def look_at(self, entry_id: str, at_most: int) -> RawEntry | None:
        """Return this entry, unless it is trimmed."""
        self.asked.append(("look at", entry_id, at_most))
        return None if entry_id in self.trimmed else RawEntry(entry_id.encode(), [b"event", b"{}"])

    async def keep(self, entry_ids: Collection[bytes]) -> None:
        """Keep these entries."""
        self.asked.append(("keep", set(entry_ids)))

    async def retire(self, idle_ms: int) -> list[str]:
        """Remove who is gone."""
        self.asked.append(("retire", idle_ms))
        return self.removed


class Taker:
    """A worker that notes what it is given, and what it holds meanwhile."""

    history = "history"
    max_entry_bytes = 77

    def __init__(self, *in_hand: bytes) -> None:
        self.in_hand = {*in_hand}
        self.taken: list[tuple[list[bytes], Mapping[bytes, int]]] = []
        self.buried: list[tuple[bytes, int, Unreadable, str]] = []
        self.held: list[set[bytes]] = []

    def gathering(self) -> Gathering:
        """Return an empty one."""
        return Gathering(Rules(frozenset(), frozenset(), 1000, 1), 1000)

    @contextmanager
    def holding(self, entry_ids: Collection[bytes]) -> Iterator[None]:
        """Have these in hand."""
        self.in_hand |= set(entry_ids)
        yield
        self.in_hand -= set(entry_ids)

    async def take(self, gathering: Gathering, deliveries: Mapping[bytes, int]) -> None:
        """Note a batch."""
        self.taken.append(([*gathering.ids], deliveries))
        self.held.append({*self.in_hand})

    async def bury(self, entry: RawEntry, deliveries: int, why: Unreadable, history: str) -> None:
        """Note what becomes a dead letter."""
        self.buried.append((entry.id, deliveries, why, history))
        self.held.append({*self.in_hand})


def reclaimer(group: Left, worker: Taker) -> Reclaimer:
    """Return one that takes what is left in this group for this worker."""
    return Reclaimer(cast("Group", group), cast("Worker", worker), SETTINGS, Patience())


def claimed(deliveries: dict[str, int], cursor: str = "0-0", lost: Sequence[str] = ()) -> Claim:
    """Return what a claim has found."""
    return Claim(cursor, lost, deliveries)


async def test_entries_that_were_delivered_once_go_as_one_batch() -> None:
    """After each deployment thousands of entries would go one by one."""
    group, worker = Left(claimed({"1-0": 1, "2-0": 1})), Taker()
    await reclaimer(group, worker).reclaim()
    assert group.asked == [("claim", 2500, "0-0"), ("deliver", ["1-0", "2-0"], 2)]
    assert worker.taken == [([b"1-0", b"2-0"], {b"1-0": 2, b"2-0": 2})]
    assert worker.buried == []


async def test_entries_that_were_delivered_more_often_go_one_by_one() -> None:
    """An entry that kills its reader would take its neighbours along; or its number would be another's."""
    group, worker = Left(claimed({"1-0": 2, "2-0": 1, "3-0": 3})), Taker()
    await reclaimer(group, worker).reclaim()
    assert group.asked[1:] == [("deliver", ["2-0"], 2), ("deliver", ["1-0"], 3), ("deliver", ["3-0"], 4)]
    assert [ids for ids, _ in worker.taken] == [[b"2-0"], [b"1-0"], [b"3-0"]]
    assert all(deliveries == {b"1-0": 3, b"2-0": 2, b"3-0": 4} for _, deliveries in worker.taken), (
        "a dead letter says how often its entry was delivered, this time too"
    )


@pytest.mark.parametrize("deliveries", [MAX_DELIVERIES, MAX_DELIVERIES + 1])
async def test_an_entry_at_the_limit_becomes_a_dead_letter_without_another_delivery(deliveries: int) -> None:
    """An entry that kills its reader would kill one worker more than the operator allows."""
    group, worker = Left(claimed({"1-0": deliveries})), Taker()
    await reclaimer(group, worker).reclaim()
    assert group.asked[1:] == [("look at", "1-0", 77)]
    ((entry, before, why, history),) = worker.buried
    assert (entry, before, history) == (b"1-0", deliveries, "history")
    assert why.reason == "max_deliveries"
    assert f"delivered {MAX_DELIVERIES} times" in why.error
    assert worker.taken == []


async def test_an_entry_at_the_limit_that_is_trimmed_holds_up_no_other() -> None:
    """A worker would stop at what is no more."""
    group, worker = Left(claimed({"1-0": MAX_DELIVERIES, "2-0": MAX_DELIVERIES})), Taker()
    group.trimmed = {"1-0"}
    await reclaimer(group, worker).reclaim()
    assert [entry for entry, *_ in worker.buried] == [b"2-0"]


async def test_all_that_is_taken_over_is_held_until_its_turn() -> None:
    """The last ones would seem abandoned, and another worker would take them meanwhile."""
    worker = Taker()
    await reclaimer(Left(claimed({"1-0": 1, "2-0": 2, "3-0": MAX_DELIVERIES})), worker).reclaim()
    assert worker.held == [{b"1-0", b"2-0", b"3-0"}] * 3
    assert worker.in_hand == set()


async def test_what_a_worker_has_in_hand_is_not_given_to_it_again() -> None:
    """A worker that has waited for Redis would handle its own batch twice at once."""
    group, worker = Left(claimed({"1-0": 1, "2-0": 1})), Taker(b"1-0")
    await reclaimer(group, worker).reclaim()
    assert [ids for ids, _ in worker.taken] == [[b"2-0"]]
    nothing_else = Left(claimed({"1-0": 1}))
    await reclaimer(nothing_else, worker).reclaim()
    assert len(nothing_else.asked) == 1


async def test_a_claim_goes_on_until_all_has_been_looked_at() -> None:
    """Of a dead worker's entries only the first 500 would be taken over in a round."""
    group = Left(claimed({}, "5-0"), claimed({}, "9-0"), claimed({}), claimed({}))
    one = reclaimer(group, Taker())
    await one.reclaim()
    assert group.asked == [("claim", 2500, "0-0"), ("claim", 2500, "5-0"), ("claim", 2500, "9-0")]
    await one.reclaim()
    assert group.asked[3:] == [("claim", 2500, "0-0")]


async def test_a_claim_that_was_interrupted_goes_on_where_it_was() -> None:
    """While Redis comes and goes the same first entries would be looked at again and again."""
    group = Left(claimed({}, "5-0"))
    one = reclaimer(group, Taker())
    with pytest.raises(StorageUnavailableError):
        await one.reclaim()
    group.claims.append(claimed({}))
    await one.reclaim()
    assert group.asked[-1] == ("claim", 2500, "5-0")


async def test_lost_entries_are_reported_with_the_first_and_the_last() -> None:
    """A loss would pass in silence."""
    with capture_logs() as lines:
        await reclaimer(Left(claimed({}, lost=["1-0", "2-0", "3-0"]), claimed({})), Taker()).reclaim()
    (line,) = lines
    assert line["event"].startswith("entries lost")
    assert (line["entries"], line["first_entry"], line["last_entry"]) == (3, "1-0", "3-0")
    assert line["log_level"] == "error"


async def test_a_worker_goes_on_at_once_with_what_its_former_selves_left() -> None:
    """After a restart its entries would lie for the claim time; or those of live workers would be taken."""
    own = SETTINGS.consumer
    group = Left(
        left_by={
            own: [{"1-0": 1}, {"2-0": 2}],
            "host-1-d4e5f6": [{"3-0": 1}],
            "elsewhere-1-d4e5f6": [{"4-0": 1}],
            "named": [{"5-0": 1}],
        }
    )
    worker = Taker()
    with capture_logs() as lines:
        await reclaimer(group, worker).inherit()
    assert [ids for ids, _ in worker.taken] == [[b"1-0"], [b"2-0"], [b"3-0"]]
    assert [asked[1] for asked in group.asked if asked[0] == "inherit"] == [own] * 3 + ["host-1-d4e5f6"] * 2
    assert [(line["whose"], line["entries"]) for line in lines] == [(own, 1), (own, 1), ("host-1-d4e5f6", 1)]


async def test_a_worker_says_what_it_works_on_only_if_it_does() -> None:
    """Others would take over a batch that takes long; or an idle worker would send empty commands."""
    group, worker = Left(), Taker()
    one = reclaimer(group, worker)
    await one.keep()
    assert group.asked == []
    worker.in_hand = {b"1-0"}
    await one.keep()
    assert group.asked == [("keep", {b"1-0"})]


@pytest.mark.parametrize("removed", [[], ["host-7-0a1b2c"]])
async def test_consumers_are_removed_after_twenty_claim_times(removed: list[str]) -> None:
    """A worker that Redis was away from for a while would lose its name, and the entries with it."""
    group = Left()
    group.removed = removed
    with capture_logs() as lines:
        await reclaimer(group, Taker()).retire()
    assert group.asked == [("retire", 50_000)]
    assert [line["consumers"] for line in lines] == ([removed] if removed else [])
