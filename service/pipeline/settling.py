"""Settle responses that a commit or a survey named: write the texts that can be finished."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from deltaloom.reasons import REFUSED, STOPPED
from handlers.core.outputs import assembled_text, contradiction_alert
from handlers.core.response import DroppedCopy, FinishedPart, resolve
from handlers.core.routing import Opening
from service import logs
from service.pipeline.slices import calls_of
from service.pipeline.times import limit_times_to_now
from service.ports.storage import (
    CopyToDrop,
    LoadedResponse,
    ResponseOutcome,
    Settlement,
    StorageUnavailableError,
    TextToWrite,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import RateScope
    from handlers.core.identity import PartKey, StreamKey
    from handlers.core.response import ResponseEnd
    from handlers.core.routing import RoutingTable
    from handlers.core.state import LowWater
    from service.ports.storage import Storage


class GivenUp(NamedTuple):
    """A decision to give up all open parts of a response.

    Storage writes nothing for the response if its last activity is no longer `activity_ms`.
    """

    activity_ms: int
    """Time of the response's last activity, in ms since the epoch, as stored at the decision.

    It may be up to 1,000 ms later than the true time.
    """
    now_ms: int
    """Server time of the decision, in ms since the epoch."""
    why: str
    """Reason of the abandoned texts: `IDLE_TIMEOUT` or `OPEN_LIMIT`."""


async def settle(
    storage: Storage,
    table: RoutingTable,
    responses: Sequence[LoadedResponse],
    low_water: LowWater,
    replication_id: str,
    given_up: Mapping[StreamKey, GivenUp] = MappingProxyType({}),
) -> int:
    """Write every text of these responses that can be finished; return the number of texts written.

    With the texts, write their alerts, apply the endings of the responses, and drop copies, which do not
    count as texts. A response that storage cannot write is set aside, and its error is logged; the others
    are written all the same.

    Args:
        storage: the storage of the responses.
        table: the handlers that raise the alerts.
        responses: the responses as stored.
        low_water: the group's low-water mark, read before the responses were.
        replication_id: the replication id under which the low-water mark was read. If the server has another
            one, nothing is written.
        given_up: the decisions to give up some of the responses, by stream key.

    Raises:
        StorageUnavailableError: the server is unavailable. Some texts may be written: settle again, with
            responses read anew.
    """
    if not responses:
        return 0
    settlements = (
        _settlement(loaded, table, low_water, given_up.get(loaded.state.stream_key), storage.now_ms)
        for loaded in responses
    )
    written = 0
    aside: set[StreamKey] = set()
    under_way: asyncio.Task[int] | None = None
    try:
        for call in calls_of(settlements):  # lazily: while the server runs a call, the next one is prepared
            if under_way is not None:
                written += await under_way
            under_way = asyncio.create_task(_write_and_log(storage, call, replication_id, aside))
            await asyncio.sleep(0)  # so that the call is sent
        return written if under_way is None else written + await under_way
    finally:
        if under_way is not None:
            under_way.cancel()


async def _write_and_log(
    storage: Storage, call: Sequence[Settlement], replication_id: str, aside: set[StreamKey]
) -> int:
    """Write the settlements of a call, and log the texts that this wrote; return their number.

    The keys of responses that cannot be written are added to `aside`; see `_write`.
    """
    parts = await _write(storage, call, replication_id, aside)
    if logs.wanted(logging.INFO):
        for text in (text for settlement in call for text in settlement.texts):
            if text.part in parts:
                _log(text)
    return len(parts)


async def _write(
    storage: Storage, settlements: Sequence[Settlement], replication_id: str, aside: set[StreamKey]
) -> set[PartKey]:
    """Write settlements, except those of responses in `aside`; return the parts whose texts were written.

    If a call fails, its settlements are written in halves, until the one that fails is alone. Its response
    is then set aside in storage, and its key is added to `aside`, so that later pieces of its settlement are
    skipped. The error is logged, not raised.

    Raises:
        StorageUnavailableError: the server is unavailable.
    """
    written: set[PartKey] = set()
    calls = deque([settlements])
    while calls:
        call = [each for each in calls.popleft() if each.stream_key not in aside]
        try:
            written |= set(await storage.settle(call, replication_id))
        except StorageUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - any error would recur at every attempt
            if len(call) > 1:
                half = len(call) // 2
                calls.extendleft((call[half:], call[:half]))
            else:
                aside.add(call[0].stream_key)
                await _set_aside(storage, call[0].stream_key, error)
    return written


async def _set_aside(storage: Storage, stream_key: StreamKey, error: Exception) -> None:
    """Log the error of a response whose texts cannot be written, and set it aside in storage.

    No worker settles the response again unless more of its events come.
    """
    logs.logger().error(
        "response given up, its texts cannot be written",
        response=stream_key.value,
        error=f"{type(error).__name__}: {error}",
    )
    await storage.set_aside(stream_key)


def _settlement(
    loaded: LoadedResponse, table: RoutingTable, low_water: LowWater, given_up: GivenUp | None, now_ms: int
) -> Settlement:
    state = loaded.state
    if given_up is None:
        resolution = resolve(state, low_water, refusing=table.refusing)
    else:
        resolution = resolve(
            state, low_water, idle_at_ms=given_up.now_ms, why=given_up.why, refusing=table.refusing
        )
    resolution = limit_times_to_now(resolution, now_ms)
    return Settlement(
        stream_key=state.stream_key,
        version=loaded.version,
        closed=[_closed(table, each, loaded) for each in resolution.closed],
        applied_endings=resolution.applied_endings,
        unsettled_since=resolution.unsettled_since,
        ended=resolution.ended,
        idle_since_ms=None if given_up is None else given_up.activity_ms,
        outcome=_outcome(resolution.ends, table) if resolution.ends else None,
        contradictions={each.part: contradiction_alert(each) for each in resolution.contradictions},
    )


def _closed(
    table: RoutingTable, closed: FinishedPart | DroppedCopy, loaded: LoadedResponse
) -> TextToWrite | CopyToDrop:
    if isinstance(closed, FinishedPart):
        return _text(table, closed, loaded)
    return CopyToDrop(closed.part, loaded.log_bytes.get(closed.part, 0), closed.late)


def _outcome(ends: Sequence[ResponseEnd], table: RoutingTable) -> ResponseOutcome:
    raised = (decide(end) for end in ends for decide in table.end_handlers)
    first = next(
        (end for end in ends if end.context.model or end.context.tenant or end.context.provider), ends[0]
    )
    context = first.context
    scopes: dict[RateScope, str | None] = {
        "model": context.model,
        "tenant": context.tenant,
        "provider": context.provider,
    }
    by_response = first.stream_key.by == "response"  # an item is not a response: a response may have several
    return ResponseOutcome(
        first.at_ms,
        [(scope, name) for scope, name in scopes.items() if name and by_response],
        [alert for alert in raised if alert is not None],
        # By the first end alone: later ends may be settled when the response is already counted.
        refused=first.reason_class in REFUSED,
        blocked=first.reason_class in STOPPED,
        cancelled=first.status == "cancelled",
        refusing=table.refusing,
    )


def _text(table: RoutingTable, finished: FinishedPart, loaded: LoadedResponse) -> TextToWrite:
    message = assembled_text(finished)
    part, handler = finished.part, table.kinds.get(finished.part.kind)
    opened = None
    if handler and handler.opened and part not in loaded.alerted:
        opened = handler.opened(
            Opening(part, message.text, finished.item_id, finished.context, finished.started_ms)
        )
    return TextToWrite(
        part=part,
        message=message,
        opened=opened,
        finished=handler.finished(message) if handler and handler.finished else None,
        log_bytes=loaded.log_bytes.get(part, 0),
        late=finished.late,
        contradicted=contradiction_alert(finished.contradiction) if finished.contradiction else None,
    )


def _log(text: TextToWrite) -> None:
    message = text.message
    logs.logger().info(
        "text finished",
        response=message.response_id,
        item=message.item_id,
        kind=message.kind,
        output_index=message.output_index,
        content_index=message.content_index,
        status=message.status,
        reason=message.reason,
        integrity=message.integrity,
        deltas=message.delta_count,
        characters=len(message.text),
        text=message.text,
    )
