"""Tests of which texts of a response are written, and what is written with them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from deltaloom.reasons import reason_class
from handlers import BUILT_IN
from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.context import note
from handlers.core.effects import Context, Ending, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.response import IDLE_TIMEOUT
from handlers.core.routing import RoutingTable
from handlers.core.state import LowWater, ResponseState
from service.pipeline.settling import GivenUp, settle
from service.ports.storage import Loaded
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
ACME = Context(tenant="acme", model="m-1")


def at(ms: int, position: int = 0) -> Arrival:
    """Return the arrival of an event in an entry of this time."""
    return Arrival(EntryId(ms, 0), position)


def part_of(key: StreamKey, kind: Kind = "refusal") -> PartKey:
    """Return the response's only part."""
    return PartKey(key, 0, 0, kind)


def response(
    key: StreamKey = KEY,
    kind: Kind = "refusal",
    *,
    closed: bool = True,
    said: Sequence[tuple[int, Context]] = (),
    ends: Sequence[tuple[int, Status, str | None]] = (),
    alerted: Iterable[PartKey] = (),
) -> Loaded:
    """Return a response with one part, of the delta "No." at 1 and, if it is closed, its `.done` at 2."""
    part = part_of(key, kind)
    closings = [StoredClosing(at(2), Rank.DONE, "No.")] if closed else []
    registers: Registers = {}
    for ms, context in said:
        note(registers, context, EntryId(ms, 0))
    endings = {
        at(ms, 9): Ending(key, None, status, reason, reason_class=reason and reason_class(reason))
        for ms, status, reason in ends
    }
    log = log_of([StoredFragment(at(1), 1, "No.")], closings, "msg_1")
    state = ResponseState(key, registers, endings, {part: log})
    return Loaded(state, 7, {part: 42}, list(alerted))


class Settlements:
    """A storage that notes what it is to write, and writes it unless it was written before."""

    now_ms = 2**63

    def __init__(self, *written_before: PartKey) -> None:
        self.calls: list[tuple[list[Settlement], str]] = []
        self._written_before = written_before

    async def settle(self, settlements: Sequence[Settlement], history: str) -> list[PartKey]:
        """Note the call; return the parts that were not written before."""
        self.calls.append((list(settlements), history))
        parts = [text.part for each in settlements for text in each.texts]
        return [part for part in parts if part not in self._written_before]


async def settled(
    *responses: Loaded,
    low_water: LowWater = ALL_STORED,
    table: RoutingTable = TABLE,
    **given_up: GivenUp,
) -> list[Settlement]:
    """Settle responses, some of them given up by their ids; return what is to be written for each."""
    storage = Settlements()
    keys = {StreamKey("response", name): why for name, why in given_up.items()}
    await settle(cast("Storage", storage), table, responses, low_water, "history", keys)
    ((settlements, history),) = storage.calls
    assert history == "history"
    return settlements


async def test_without_responses_storage_is_not_asked() -> None:
    """Every batch of deltas would cost one more round trip."""
    storage = Settlements()
    assert await settle(cast("Storage", storage), TABLE, [], ALL_STORED, "history") == 0
    assert storage.calls == []


async def test_a_closed_text_is_written_as_it_was_read() -> None:
    """The script could not see that the response has changed since it was read."""
    (settlement,) = await settled(response())
    assert (settlement.stream_key, settlement.version) == (KEY, 7)
    (text,) = settlement.texts
    assert (text.part, text.message.text, text.log_bytes, text.late) == (part_of(KEY), "No.", 42, 0)
    assert settlement.idle_since_ms is None
    assert settlement.doubtful_since is None
    assert not settlement.ended
    assert settlement.over is None


async def test_a_log_of_unknown_length_counts_as_empty() -> None:
    """A text that only the final copy has would never be written: it has no log."""
    read = response()
    (settlement,) = await settled(Loaded(read.state, read.version, {}, ()))
    assert [text.log_bytes for text in settlement.texts] == [0]


async def test_late_deltas_are_counted() -> None:
    """Nobody would learn that a producer goes on after its `.done`."""
    log = log_of(
        [StoredFragment(at(1), 1, "No."), StoredFragment(at(3), 3, "late")],
        [StoredClosing(at(2), Rank.DONE, "No.")],
    )
    (settlement,) = await settled(Loaded(ResponseState(KEY, open_parts={part_of(KEY): log}), 1, {}, ()))
    assert [text.late for text in settlement.texts] == [1]


async def test_many_responses_are_settled_some_at_a_time() -> None:
    """What a look finds to give up would hold up the texts of batches that come meanwhile."""
    taken, taken_before_calls = 0, []

    class Some(list[Loaded]):
        def __iter__(self) -> Iterator[Loaded]:
            nonlocal taken
            for each in super().__iter__():
                taken += 1
                yield each

    class Noting(Settlements):
        async def settle(self, settlements: Sequence[Settlement], history: str) -> list[PartKey]:
            taken_before_calls.append(taken)
            return await super().settle(settlements, history)

    responses = Some(response(StreamKey("response", f"resp_{number}")) for number in range(250))
    assert await settle(cast("Storage", Noting()), TABLE, responses, ALL_STORED, "history") == 250
    assert taken_before_calls == [101, 201, 250]


@pytest.mark.parametrize(("model", "sizes"), [("m-{}", [50, 50]), ("m-1", [99, 1])])
async def test_new_names_are_counted_some_at_a_time(model: str, sizes: list[int]) -> None:
    """Thousands of models that nobody has would hold up the server, which makes room for each."""

    def ended(number: int) -> Loaded:
        said = [(1, Context(model=model.format(number), tenant=model.format(number)))]
        return response(StreamKey("response", f"resp_{number}"), said=said, ends=[(3, "completed", None)])

    storage = Settlements()
    await settle(cast("Storage", storage), TABLE, list(map(ended, range(100))), ALL_STORED, "history")
    assert [len(settlements) for settlements, _ in storage.calls] == sizes


async def test_only_what_storage_has_written_counts_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The sweep would go on for ever over texts that another worker has written."""
    both = [response(KEY), response(OTHER)]
    caplog.set_level(logging.INFO)
    with capture_logs() as lines:
        storage = cast("Storage", Settlements(part_of(OTHER)))
        assert await settle(storage, TABLE, both, ALL_STORED, "history") == 1
    assert [(line["event"], line["response"]) for line in lines] == [("text finished", "resp_1")]
    (line,) = lines
    assert (line["characters"], line["text"], line["log_level"]) == (3, "No.", "info")


async def test_nothing_is_logged_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """A line for each text would be made for nobody."""
    caplog.set_level(logging.WARNING)
    with capture_logs() as lines:
        await settled(response())
    assert lines == []


async def test_a_text_waits_until_its_closing_entry_is_behind_the_low_water_mark() -> None:
    """Deltas that another worker still holds would be missing in the text."""
    (settlement,) = await settled(response(), low_water=LowWater(EntryId(2, 0)))
    assert settlement.texts == []
    assert settlement.doubtful_since == EntryId(2, 0)


async def test_a_refusal_brings_both_alerts_if_none_was_raised() -> None:
    """A refusal that came whole, in one batch, would raise no alert; or its alerts would lack its context."""
    (settlement,) = await settled(response(said=[(1, ACME)]))
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
    """People would be told of the same refusal twice."""
    (settlement,) = await settled(response(alerted=[part_of(KEY)]))
    (text,) = settlement.texts
    assert text.opened is None
    assert text.finished is not None


@pytest.mark.parametrize("table", [TABLE, RoutingTable([])], ids=["its handler", "no handler"])
async def test_a_text_of_another_kind_raises_no_alert(table: RoutingTable) -> None:
    """People would be told of what a model thinks, or a missing handler stop the worker."""
    (settlement,) = await settled(response(kind="reasoning"), table=table)
    (text,) = settlement.texts
    assert (text.message.kind, text.opened, text.finished) == ("reasoning", None, None)


async def test_only_the_response_that_is_given_up_is_abandoned() -> None:
    """A text in mid-stream would be cut off because another response fell silent."""
    one, two = await settled(
        response(KEY, closed=False), response(OTHER, closed=False), resp_2=GivenUp(5, 9000, "open_limit")
    )
    assert (one.texts, one.idle_since_ms, one.ended, one.over) == ([], None, False, None)
    (text,) = two.texts
    assert (text.message.status, text.message.reason) == ("abandoned", "open_limit")
    assert text.message.finished_at.timestamp() == 9
    assert (two.idle_since_ms, two.ended) == (5, True)
    assert two.over is not None
    assert two.over.at_ms == 9000


async def test_an_end_is_counted_for_the_model_and_the_tenant() -> None:
    """The rates of refusals would miss a response, or count it for somebody else."""
    (settlement,) = await settled(response(said=[(1, ACME)], ends=[(3, "completed", None)]))
    assert settlement.ended
    assert settlement.spent == [at(3, 9)]
    assert settlement.over is not None
    assert settlement.over.at_ms == 3
    assert settlement.over.counted_for == [("model", "m-1"), ("tenant", "acme")]
    assert settlement.over.alerts == []


@pytest.mark.parametrize(
    ("context", "counted_for"),
    [
        (Context(), []),
        (Context(tenant="acme"), [("tenant", "acme")]),
        (Context(model="m-1"), [("model", "m-1")]),
    ],
    ids=["nobody", "the tenant", "the model"],
)
async def test_an_end_is_counted_for_whom_it_names(
    context: Context, counted_for: list[tuple[str, str]]
) -> None:
    """Responses of unknown models would be counted as those of a model without a name."""
    (settlement,) = await settled(response(said=[(1, context)], ends=[(3, "completed", None)]))
    assert settlement.over is not None
    assert settlement.over.counted_for == counted_for


@pytest.mark.parametrize(
    ("named", "first"), [(Context(model="m-1"), "model"), (Context(tenant="acme"), "tenant")]
)
async def test_the_first_end_that_names_anybody_decides(named: Context, first: str) -> None:
    """A response whose first end came before its context would be counted for nobody."""
    ends: list[tuple[int, Status, str | None]] = [
        (3, "failed", "server_error"),
        (5, "failed", "server_error"),
    ]
    (settlement,) = await settled(response(said=[(4, named)], ends=ends))
    assert settlement.over is not None
    assert settlement.over.at_ms == 5
    assert [scope for scope, _ in settlement.over.counted_for] == [first]


async def test_an_item_without_a_response_id_is_not_counted() -> None:
    """A response of several items would count several times."""
    key = StreamKey("item", "msg_1")
    (settlement,) = await settled(response(key, said=[(1, ACME)], ends=[(3, "completed", None)]))
    assert settlement.over is not None
    assert settlement.over.counted_for == []


async def test_every_end_is_asked_for_its_alert() -> None:
    """A response that a policy has stopped would raise no alert, if an `error` came before its end."""
    ends: list[tuple[int, Status, str | None]] = [
        (3, "failed", "server_error"),
        (4, "failed", "content_filter"),
        (5, "incomplete", "content_filter"),
    ]
    (settlement,) = await settled(response(kind="reasoning", ends=ends))
    assert settlement.over is not None
    assert settlement.over.at_ms == 3
    assert [alert.type for alert in settlement.over.alerts] == [
        "deltaloom.response.blocked",
        "deltaloom.response.filtered",
    ]


async def test_a_silent_response_that_has_ended_is_not_given_up_twice() -> None:
    """It would be counted at two times: by its end, and by the sweep."""
    (settlement,) = await settled(
        response(ends=[(3, "completed", None)]), resp_1=GivenUp(3, 9000, IDLE_TIMEOUT)
    )
    assert settlement.over is not None
    assert settlement.over.at_ms == 3
