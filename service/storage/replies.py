"""Decode the replies of the scripts, and convert them to the data classes of `service.ports`.

commit.lua and survey.lua reply with maps. A structure inside a map is an array. The script's header gives the
order of its fields, and a test compares that with the named tuples here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import msgspec

from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.state import LowWater
from service.ports.storage import Committed, Contradicted, LoadedResponse, Survey
from service.storage import commit_plan
from service.storage.records import named, pairs, registers_of, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.context import Registers
    from service.ports.commit import Commit
    from service.storage.commit_plan import CommitPlan


class PartIndex(NamedTuple):
    """A part: the index of its response in the plan, and its own index in that response, both from 0."""

    response: int
    part: int


class OwnedEntry(NamedTuple):
    """A pending entry that is known to belong to one response; `stuck` if its worker seems stuck with it."""

    id: str
    response: str
    stuck: bool


class LowWaterReply(NamedTuple):
    """The pending entries that hold back the low-water mark, as commit.lua and survey.lua report them."""

    oldest_pending: str
    """Id of the oldest pending entry that is not known to belong to one response; empty without one."""
    last_delivered: str
    """Id of the last entry that the group has delivered; commit.lua gives 0-0 instead if `oldest_pending` is
    set."""
    stalled: bool
    """True if the worker with the entry `oldest_pending` seems stuck."""
    owned: list[OwnedEntry]
    """The pending entries before `oldest_pending`, or all if that is empty, the oldest first. Each belongs to
    one response."""


class RefusedLog(NamedTuple):
    """A log, by its index from 0 in `CommitPlan.growing_parts`, that is missing (0 bytes) or near a limit."""

    log: int
    bytes: int


class ContradictedPart(NamedTuple):
    """A finished part for which the batch has another text but no alert about it.

    `response` and `part` are its indexes, as in `PartIndex`.
    """

    response: int
    part: int
    digest: str
    """Digest of the finished text."""
    registers: list[str]
    """Names and values, alternating, of the registers of its response."""


class CommitReply(msgspec.Struct, forbid_unknown_fields=True):
    """The reply of commit.lua; the header of that file describes the fields. Indexes are from 0.

    The script has written nothing if `surviving_entries` is not None, or if one of `overflowing`, `crowded`,
    `too_many_notes`, `missing_data`, `refused_logs` and `contradicted` is not empty.
    """

    replication_id: str
    now_ms: str
    surviving_entries: list[int] | None = None
    overflowing: list[PartIndex] = []
    crowded: list[PartIndex] = []
    too_many_notes: list[int] = []
    missing_data: list[int] = []
    refused_logs: list[RefusedLog] = []
    contradicted: list[ContradictedPart] = []
    acknowledged: int = 0
    pending_entries: list[int] | None = None
    late_events: int = 0
    opened: list[PartIndex] = []
    disputed: list[PartIndex] = []
    reported_crowds: list[int] = []
    low_water: LowWaterReply = LowWaterReply("", "0-0", False, [])  # noqa: FBT003 - in the order of the reply
    ready: list[str] = []
    more: bool = False
    surplus: int = 0


class SurveyReply(msgspec.Struct, forbid_unknown_fields=True):
    """The reply of survey.lua; the header of that file describes the fields.

    In `idle` and `surplus`, responses alternate with the milliseconds of their last activity.
    """

    replication_id: str
    now_ms: str
    low_water: LowWaterReply
    ready: list[str]
    more: bool
    idle: list[str]
    surplus: list[str]


class SettleReply(NamedTuple):
    """The reply of settle.lua. All fields are empty or 0 if the replication id has changed."""

    written: list[tuple[int, int]]
    """Texts that this run has written: index of the settlement, and index in its `closed`, both from 0."""
    raised: list[str]
    """Ids of the alerts that this run has raised."""
    late: int
    """Number of deltas after the closing event that this run has counted."""


class RatesReply(NamedTuple):
    """The reply of rates.lua: names of fields of buckets, and the sums of their values, in the same order."""

    fields: list[str]
    sums: list[int]


decode_commit = msgspec.msgpack.Decoder(CommitReply).decode
decode_settle = msgspec.msgpack.Decoder(SettleReply).decode
decode_survey = msgspec.msgpack.Decoder(SurveyReply).decode
decode_rates = msgspec.msgpack.Decoder(RatesReply).decode


def loaded_from(
    key: StreamKey, state: Mapping[str, bytes], logs: Mapping[str, bytes | None]
) -> LoadedResponse:
    """Build a response from the fields of its state, and from its open parts' logs by `PartKey.field`.

    A part whose log is None counts as finished: another worker has finished it since its state was read. The
    version is 0 if the state has none.
    """
    sizes = {PartKey.from_field(key, field): len(log) for field, log in logs.items() if log is not None}
    alerted = [
        PartKey.from_field(key, field)
        for field, log in logs.items()
        if log is not None and f"alerted:{field}" in state
    ]
    return LoadedResponse(state_of(key, state, logs), int(state.get("version", 0)), sizes, alerted)


class _LoadedResponses(Sequence[LoadedResponse]):
    """The responses that a commit has loaded, each decoded at each access by index or iteration.

    So the texts of the first ones are written before the last ones are decoded. A slice decodes nothing.
    """

    def __init__(self, raws: Sequence[tuple[StreamKey, list[bytes], list[bytes]]]) -> None:
        self._raws = raws

    def __len__(self) -> int:
        return len(self._raws)

    @overload
    def __getitem__(self, index: int) -> LoadedResponse: ...
    @overload
    def __getitem__(self, index: slice) -> _LoadedResponses: ...
    def __getitem__(self, index: int | slice) -> LoadedResponse | _LoadedResponses:
        if isinstance(index, slice):
            return _LoadedResponses(self._raws[index])
        key, state, logs = self._raws[index]
        return loaded_from(key, named(pairs(state)), named(pairs(logs)))


def committed_from(
    reply: CommitReply,
    loaded: Sequence[tuple[int, list[bytes], list[bytes]]],
    commit: Commit,
    plan: CommitPlan,
) -> Committed:
    """Build the result of a commit from the reply of commit.lua.

    Args:
        reply: the reply of the script.
        loaded: the responses that the script has loaded: the index in the plan, from 0; the fields and values
            of the state, alternating; and the fields and logs of the open parts, alternating.
        commit: the commit.
        plan: the plan that was sent.
    """

    def part_at(response: int, part: int) -> PartKey:
        return parts_of[response][part]

    indexes = (*reply.overflowing, *reply.crowded, *reply.opened, *reply.disputed)
    responses = {each.response for each in indexes} | {each.response for each in reply.contradicted}
    parts_of = {response: list(commit.responses[plan.responses[response]].parts) for response in responses}
    return Committed(
        overflowing=[part_at(*index) for index in reply.overflowing],
        crowded=[part_at(*index) for index in reply.crowded],
        too_many_notes=[plan.responses[response] for response in reply.too_many_notes],
        contradicted={
            part_at(each.response, each.part): Contradicted(each.digest, _registers_in(each.registers))
            for each in reply.contradicted
        },
        acknowledged=reply.acknowledged,
        pending_entries=reply.pending_entries,
        opened_parts=[part_at(*index) for index in reply.opened],
        disputed_parts=[part_at(*index) for index in reply.disputed],
        late_events=reply.late_events,
        reported_crowds=reply.reported_crowds,
        low_water=_low_water(reply.low_water),
        ready=[StreamKey.parse(member) for member in reply.ready],
        loaded=_LoadedResponses(
            [(plan.responses[response], state, logs) for response, state, logs in loaded]
        ),
        loaded_keys=[plan.responses[response] for response, _, _ in loaded],
        # The script sets `more` before it adds the waiting responses of a stalled group.
        more=reply.more or len(reply.ready) + len(loaded) >= commit_plan.MAX_RESPONSES,
        surplus=reply.surplus,
        replication_id=reply.replication_id,
        now_ms=int(reply.now_ms),
    )


def survey_from(reply: SurveyReply) -> Survey:
    """Build the result of a survey from the reply of survey.lua.

    `more` is also true if the idle or the surplus responses reach the limit of a survey.
    """
    idle, surplus = _scores(reply.idle), _scores(reply.surplus)
    return Survey(
        low_water=_low_water(reply.low_water),
        now_ms=int(reply.now_ms),
        ready=[StreamKey.parse(member) for member in reply.ready],
        more=reply.more or max(len(idle), len(surplus)) >= commit_plan.MAX_RESPONSES,
        idle=idle,
        surplus=surplus,
        replication_id=reply.replication_id,
    )


def _low_water(reply: LowWaterReply) -> LowWater:
    """Return the low-water mark: the oldest pending entry that is not known to belong to one response.

    Without such an entry, it is the id that follows the last delivered one, since other workers may have read
    later entries after the script ran. A pending entry that is known to belong to one response holds back
    only the mark of that response, in `owned`.
    """
    owned = {
        StreamKey.parse(entry.response): LowWater(EntryId.parse(entry.id), entry.stuck)
        for entry in reversed(reply.owned)  # the oldest entry of a response wins
    }
    if reply.oldest_pending:
        return LowWater(EntryId.parse(reply.oldest_pending), reply.stalled, owned)
    return LowWater(EntryId.parse(reply.last_delivered).next(), owned=owned)


def _registers_in(fields: Sequence[str]) -> Registers:
    return registers_of({name: value.encode() for name, value in pairs(fields)})


def _scores(members: Sequence[str]) -> dict[StreamKey, int]:
    return {StreamKey.parse(member): int(float(score)) for member, score in pairs(members)}
