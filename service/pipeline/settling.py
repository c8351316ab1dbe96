"""Finish what can be finished: of the responses a batch touched, or a survey found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.outputs import assembled_text
from handlers.core.response import FinishedPart, ResponseState, resolve
from handlers.core.routing import Opening
from service import logs
from service.ports import FinishedText, Loaded, Settlement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.core.identity import StreamKey
    from handlers.core.response import LowWater
    from handlers.core.routing import RoutingTable
    from service.ports import Storage


async def settle(
    storage: Storage,
    table: RoutingTable,
    stream_keys: Sequence[StreamKey],
    low_water: LowWater,
    *,
    idle: Mapping[StreamKey, int] | None = None,
    now_ms: int = 0,
) -> int:
    """Write every text of these responses that can be finished; returns how many were.

    Args:
        storage: where the responses are.
        table: whose handlers raise the alerts.
        stream_keys: the responses.
        low_water: the group's low-water mark, as it was before this call.
        idle: those of which nothing came for the idle timeout, with their latest entry's milliseconds.
        now_ms: the server's time.
    """
    idle = idle or {}
    settlements = []
    for loaded in await storage.load(stream_keys) if stream_keys else ():
        idle_since_ms = idle.get(loaded.state.stream_key)
        settlements.append(_settlement(loaded, table, low_water, idle_since_ms, now_ms))
    if not settlements:
        return 0
    written = set(await storage.settle(settlements))
    for settlement in settlements:
        for text in settlement.texts:
            if text.part in written:
                _log(text)
    return len(written)


def _settlement(
    loaded: Loaded,
    table: RoutingTable,
    low_water: LowWater,
    idle_since_ms: int | None,
    now_ms: int,
) -> Settlement:
    state = loaded.state
    resolution = resolve(state, low_water, idle_at_ms=None if idle_since_ms is None else now_ms)
    return Settlement(
        state.stream_key,
        loaded.version,
        [_text(state, table, finished) for finished in resolution.finished],
        resolution.spent,
        resolution.doubtful_since,
        resolution.ended,
        idle_since_ms,
    )


def _text(state: ResponseState, table: RoutingTable, finished: FinishedPart) -> FinishedText:
    message = assembled_text(finished, state.context)
    handler = table.kinds.get(finished.part.kind)
    opened = handler and handler.opened
    closed = handler and handler.finished
    opening = Opening(finished.part, message.text, finished.item_id, state.context, finished.started_ms)
    return FinishedText(
        finished.part,
        message,
        opened(opening) if opened else None,
        closed(message) if closed else None,
        finished.late_events,
    )


def _log(text: FinishedText) -> None:
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
