"""Test which texts of a response are written, and with which data."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from deltaloom.reasons import reason_class
from handlers import BUILT_IN
from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.context import merge_context
from handlers.core.effects import ContextValues, Ending, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.response import IDLE_TIMEOUT
from handlers.core.routing import RoutingTable
from handlers.core.state import LowWater, ResponseState
from service.pipeline.settling import GivenUp, settle
from service.ports.storage import LoadedResponse
from tests.strategies import log_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltaloom.messages import Kind, Status
    from handlers.core.context import Registers
    from service.ports.storage import Settlement, Storage

TABLE = RoutingTable(BUILT_IN.values())
ALL_STORED = LowWater(EntryId(1_000_000, 0))
KEY = StreamKey("response", "resp_1")
OTHER = StreamKey("response", "resp_2")
ACME = ContextValues(tenant="acme", model="m-1")


def at(ms: int, position: int = 0) -> Arrival:
    """Return the arrival of an event in an entry of this time, in milliseconds."""
    return Arrival(EntryId(ms, 0), position)


def part_of(key: StreamKey, kind: Kind = "refusal") -> PartKey:
    """Return the response's only part."""
    return PartKey(key, 0, 0, kind)


def response(
    key: StreamKey = KEY,
    kind: Kind = "refusal",
    *,
    closed: bool = True,
    contexts: Sequence[tuple[int, ContextValues]] = (),
    ends: Sequence[tuple[int, Status, str | None]] = (),
    alerted: Iterable[PartKey] = (),
) -> LoadedResponse:
    """Return a response with one part: the delta "No." at 1 ms and, if closed, its `.done` event at 2 ms."""
    part = part_of(key, kind)
    closings = [StoredClosing(at(2), Rank.DONE, "No.")] if closed else []
    registers: Registers = {}
    for ms, context in contexts:
        merge_context(registers, context, EntryId(ms, 0))
    endings = {
        at(ms, 9): Ending(key, None, status, reason, reason_class=reason and reason_class(reason))
        for ms, status, reason in ends
    }
    log = log_of([StoredFragment(at(1), 1, "No.")], closings, "msg_1")
    state = ResponseState(key, registers, endings, {part: log})
    return LoadedResponse(state, 7, {part: 42}, list(alerted))


class Settlements:
    """A storage that records settlements and accepts the parts that were not written before."""

    now_ms = 2**63

    def __init__(self, *written_before: PartKey) -> None:
        self.calls: list[tuple[list[Settlement], str]] = []
        self._written_before = written_before

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> list[PartKey]:
        """Record the call and return the parts that were not written before."""
        self.calls.append((list(settlements), replication_id))
        parts = [text.part for each in settlements for text in each.texts]
        return [part for part in parts if part not in self._written_before]


async def settled(
    *responses: LoadedResponse,
    low_water: LowWater = ALL_STORED,
    table: RoutingTable = TABLE,
    **given_up: GivenUp,
) -> list[Settlement]:
    """Settle responses and return the settlements. `given_up` names abandoned responses by id."""
    storage = Settlements()
    keys = {StreamKey("response", name): why for name, why in given_up.items()}
    await settle(cast("Storage", storage), table, responses, low_water, "history", keys)
    ((settlements, replication_id),) = storage.calls
    assert replication_id == "history"
    return settlements


async def test_without_responses_storage_is_not_called() -> None:
    """Send nothing to storage without responses. Otherwise each batch of deltas would cost a round trip."""
    storage = Settlements()
    assert await settle(cast("Storage", storage), TABLE, [], ALL_STORED, "history") == 0
    assert storage.calls == []


async def test_a_closed_text_is_written_as_it_was_read() -> None:
    """Pass on the version that was read, so that the script detects a change of the response since then."""
    (settlement,) = await settled(response())
    assert (settlement.stream_key, settlement.version) == (KEY, 7)
    (text,) = settlement.texts
    assert (text.part, text.message.text, text.log_bytes, text.late) == (part_of(KEY), "No.", 42, 0)
    assert settlement.idle_since_ms is None
    assert settlement.unsettled_since is None
    assert not settlement.ended
    assert settlement.outcome is None


async def test_a_log_of_unknown_length_counts_as_empty() -> None:
    """Treat a missing log as empty. Otherwise a text that only the final copy has would never be written."""
    read = response()
    (settlement,) = await settled(LoadedResponse(read.state, read.version, {}, ()))
    assert [text.log_bytes for text in settlement.texts] == [0]


async def test_late_deltas_are_counted() -> None:
    """Count deltas after the closing, which show that a producer continues after its `.done`."""
    log = log_of(
        [StoredFragment(at(1), 1, "No."), StoredFragment(at(3), 3, "late")],
        [StoredClosing(at(2), Rank.DONE, "No.")],
    )
    (settlement,) = await settled(
        LoadedResponse(ResponseState(KEY, open_parts={part_of(KEY): log}), 1, {}, ())
    )
    assert [text.late for text in settlement.texts] == [1]


async def test_many_responses_are_settled_some_at_a_time() -> None:
    """Settle in portions of 50 responses. Otherwise the first texts of many would wait for the last ones."""
    taken, taken_before_calls = 0, []

    class Some(list[LoadedResponse]):
        def __iter__(self) -> Iterator[LoadedResponse]:
            nonlocal taken
            for each in super().__iter__():
                taken += 1
                yield each

    class Noting(Settlements):
        async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> list[PartKey]:
            taken_before_calls.append(taken)
            return await super().settle(settlements, replication_id)

    responses = Some(response(StreamKey("response", f"resp_{number}")) for number in range(125))
    assert await settle(cast("Storage", Noting()), TABLE, responses, ALL_STORED, "history") == 125
    assert taken_before_calls == [51, 101, 125]


async def test_a_call_is_prepared_while_the_server_runs_the_one_before() -> None:
    """Resolve the next responses while a call is under way, but send one call at a time, in order."""
    taken, under_way, seen = 0, 0, []

    def resolved(responses: Iterable[LoadedResponse]) -> Iterator[LoadedResponse]:
        nonlocal taken
        for each in responses:
            taken += 1
            yield each

    class Slow(Settlements):
        async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> list[PartKey]:
            nonlocal under_way
            under_way += 1
            before = taken
            for _ in range(3):
                await asyncio.sleep(0)
            seen.append((before, taken, under_way))
            under_way -= 1
            return await super().settle(settlements, replication_id)

    class Some(list[LoadedResponse]):
        def __iter__(self) -> Iterator[LoadedResponse]:
            return resolved(super().__iter__())

    responses = Some(response(StreamKey("response", f"resp_{number}")) for number in range(125))
    assert await settle(cast("Storage", Slow()), TABLE, responses, ALL_STORED, "history") == 125
    assert seen == [(51, 101, 1), (101, 125, 1), (125, 125, 1)]


async def test_a_call_under_way_is_cancelled_with_its_batch() -> None:
    """Leave no call behind if its batch fails or is cancelled: its connection would close under it."""
    ended = asyncio.Event()

    class Hanging(Settlements):
        async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> list[PartKey]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return await super().settle(settlements, replication_id)

    class Failing(list[LoadedResponse]):
        def __iter__(self) -> Iterator[LoadedResponse]:
            yield from super().__iter__()
            raise LookupError

    responses = Failing(response(StreamKey("response", f"resp_{number}")) for number in range(60))
    with pytest.raises(LookupError):
        await settle(cast("Storage", Hanging()), TABLE, responses, ALL_STORED, "history")
    await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize(("model", "sizes"), [("m-{}", [25] * 4), ("m-1", [49, 49, 2])])
async def test_new_names_are_counted_some_at_a_time(model: str, sizes: list[int]) -> None:
    """Limit the new names of one settlement, since the server may have to replace a name for each."""

    def ended(number: int) -> LoadedResponse:
        contexts = [(1, ContextValues(model=model.format(number), tenant=model.format(number)))]
        return response(
            StreamKey("response", f"resp_{number}"), contexts=contexts, ends=[(3, "completed", None)]
        )

    storage = Settlements()
    await settle(cast("Storage", storage), TABLE, list(map(ended, range(100))), ALL_STORED, "history")
    assert [len(settlements) for settlements, _ in storage.calls] == sizes


async def test_only_texts_that_storage_accepted_are_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Return and log only parts that storage accepted. Otherwise the sweep would never end."""
    both = [response(KEY), response(OTHER)]
    caplog.set_level(logging.INFO)
    with capture_logs() as lines:
        storage = cast("Storage", Settlements(part_of(OTHER)))
        assert await settle(storage, TABLE, both, ALL_STORED, "history") == 1
    assert [(line["event"], line["response"]) for line in lines] == [("text finished", "resp_1")]
    (line,) = lines
    assert (line["characters"], line["text"], line["log_level"]) == (3, "No.", "info")


async def test_hidden_log_lines_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    """Skip the log line of a text if the level hides it."""
    caplog.set_level(logging.WARNING)
    with capture_logs() as lines:
        await settled(response())
    assert lines == []


async def test_a_text_waits_until_its_closing_entry_is_behind_the_low_water_mark() -> None:
    """Wait for the low-water mark. Otherwise deltas that another worker holds would be missing."""
    (settlement,) = await settled(response(), low_water=LowWater(EntryId(2, 0)))
    assert settlement.texts == []
    assert settlement.unsettled_since == EntryId(2, 0)


async def test_a_refusal_brings_both_alerts_if_none_was_raised() -> None:
    """Raise both alerts, with context, for a refusal that arrived in one batch."""
    (settlement,) = await settled(response(contexts=[(1, ACME)]))
    (text,) = settlement.texts
    assert text.opened is not None
    assert text.finished is not None
    assert (text.opened.type, text.finished.type) == (
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    )
    assert (text.opened.text, text.opened.item_id, text.opened.tenant) == ("No.", "msg_1", "acme")
    assert text.opened.raised_at.timestamp() == 0.001
    assert text.finished.raised_at.timestamp() == 0.002


async def test_an_alert_that_was_raised_is_not_raised_again() -> None:
    """Raise no second opened alert for a refusal."""
    (settlement,) = await settled(response(alerted=[part_of(KEY)]))
    (text,) = settlement.texts
    assert text.opened is None
    assert text.finished is not None


@pytest.mark.parametrize("table", [TABLE, RoutingTable([])], ids=["its handler", "no handler"])
async def test_a_text_of_another_kind_raises_no_alert(table: RoutingTable) -> None:
    """Raise no alert for reasoning, with or without its handler."""
    (settlement,) = await settled(response(kind="reasoning"), table=table)
    (text,) = settlement.texts
    assert (text.message.kind, text.opened, text.finished) == ("reasoning", None, None)


async def test_only_the_response_that_is_given_up_is_abandoned() -> None:
    """Abandon only the given response. Otherwise another response's text would be cut off."""
    one, two = await settled(
        response(KEY, closed=False), response(OTHER, closed=False), resp_2=GivenUp(5, 9000, "open_limit")
    )
    assert (one.texts, one.idle_since_ms, one.ended, one.outcome) == ([], None, False, None)
    (text,) = two.texts
    assert (text.message.status, text.message.reason) == ("abandoned", "open_limit")
    assert text.message.finished_at.timestamp() == 9
    assert (two.idle_since_ms, two.ended) == (5, True)
    assert two.outcome is not None
    assert two.outcome.at_ms == 9000


async def test_an_end_is_counted_for_the_model_and_the_tenant() -> None:
    """Count an ended response for its model and its tenant, for the refusal rates."""
    (settlement,) = await settled(response(contexts=[(1, ACME)], ends=[(3, "completed", None)]))
    assert settlement.ended
    assert settlement.applied_endings == [at(3, 9)]
    assert settlement.outcome is not None
    assert settlement.outcome.at_ms == 3
    assert settlement.outcome.counted_for == [("model", "m-1"), ("tenant", "acme")]
    assert settlement.outcome.alerts == []


@pytest.mark.parametrize(
    ("context", "counted_for"),
    [
        (ContextValues(), []),
        (ContextValues(tenant="acme"), [("tenant", "acme")]),
        (ContextValues(model="m-1"), [("model", "m-1")]),
    ],
    ids=["no names", "the tenant", "the model"],
)
async def test_an_end_is_counted_for_known_names(
    context: ContextValues, counted_for: list[tuple[str, str]]
) -> None:
    """Count an ended response only for known names."""
    (settlement,) = await settled(response(contexts=[(1, context)], ends=[(3, "completed", None)]))
    assert settlement.outcome is not None
    assert settlement.outcome.counted_for == counted_for


@pytest.mark.parametrize(
    ("named", "first"), [(ContextValues(model="m-1"), "model"), (ContextValues(tenant="acme"), "tenant")]
)
async def test_the_first_end_with_a_name_decides(named: ContextValues, first: str) -> None:
    """Count with the first ending that has a model or a tenant."""
    ends: list[tuple[int, Status, str | None]] = [
        (3, "failed", "server_error"),
        (5, "failed", "server_error"),
    ]
    (settlement,) = await settled(response(contexts=[(4, named)], ends=ends))
    assert settlement.outcome is not None
    assert settlement.outcome.at_ms == 5
    assert [scope for scope, _ in settlement.outcome.counted_for] == [first]


async def test_an_item_without_a_response_id_is_not_counted() -> None:
    """Count no items without a response id.

    Otherwise a response of several items would count several times.
    """
    key = StreamKey("item", "msg_1")
    (settlement,) = await settled(response(key, contexts=[(1, ACME)], ends=[(3, "completed", None)]))
    assert settlement.outcome is not None
    assert settlement.outcome.counted_for == []


async def test_every_end_is_checked_for_alerts() -> None:
    """Check all endings for alerts. Otherwise an earlier `error` would hide a policy's ending."""
    ends: list[tuple[int, Status, str | None]] = [
        (3, "failed", "server_error"),
        (4, "failed", "content_filter"),
        (5, "incomplete", "content_filter"),
    ]
    (settlement,) = await settled(response(kind="reasoning", ends=ends))
    assert settlement.outcome is not None
    assert settlement.outcome.at_ms == 3
    assert [alert.type for alert in settlement.outcome.alerts] == [
        "deltaloom.response.blocked",
        "deltaloom.response.filtered",
    ]


async def test_a_silent_response_that_has_ended_is_not_given_up_twice() -> None:
    """Use the real ending of an idle response. Otherwise it would be counted a second time."""
    (settlement,) = await settled(
        response(ends=[(3, "completed", None)]), resp_1=GivenUp(3, 9000, IDLE_TIMEOUT)
    )
    assert settlement.outcome is not None
    assert settlement.outcome.at_ms == 3


class Picky(Settlements):
    """A storage that cannot write one response: every call with it fails."""

    def __init__(self, unwritable: StreamKey) -> None:
        super().__init__()
        self.set_aside_keys: list[StreamKey] = []
        self._unwritable = unwritable

    async def settle(self, settlements: Sequence[Settlement], replication_id: str) -> list[PartKey]:
        """Fail if the response is among the settlements."""
        if any(each.stream_key == self._unwritable for each in settlements):
            raise ValueError("cannot be written")
        return await super().settle(settlements, replication_id)

    async def set_aside(self, stream_key: StreamKey) -> None:
        """Note the response."""
        self.set_aside_keys.append(stream_key)


async def test_a_response_that_cannot_be_written_costs_no_other() -> None:
    """Set aside the one response that fails, log it, and write all others of its call, in order."""
    keys = [StreamKey("response", f"resp_{number}") for number in range(7)]
    storage = Picky(keys[4])
    with capture_logs() as lines:
        written = await settle(
            cast("Storage", storage), TABLE, [response(key) for key in keys], ALL_STORED, "history"
        )
    assert written == 6
    settled_keys = [each.stream_key for call, _ in storage.calls for each in call]
    assert settled_keys == [key for key in keys if key != keys[4]]
    assert storage.set_aside_keys == [keys[4]]
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert (error["response"], error["error"]) == ("resp_4", "ValueError: cannot be written")
