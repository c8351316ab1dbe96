"""What closes parts from outside: full copies of a part or an item, and the end of the response.

A copy counts for text too: some servers send no deltas, or no `.done`. An event that ends a response
closes whatever of it is open; where its producer gave no response id, the items in its final copy say
which streams it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import (
    ContentPartDone,
    ErrorEvent,
    Item,
    MessageItem,
    OutputItemDone,
    Part,
    ReasoningItem,
    RefusalPart,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseSnapshot,
    TextPart,
)
from handlers.core.effects import Closing, Copy, Effect, Ending, Learned, Origin, Rank
from handlers.core.identity import PartKey, StreamKey
from handlers.core.routing import Handler, Route
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import Kind, Status

_KINDS: dict[str, Kind] = {
    "refusal": "refusal",
    "output_text": "output_text",
    "reasoning_text": "reasoning",
    "summary_text": "reasoning_summary",
}
"""From the type of a content part to the kind of text in it."""


def _text(part: Part) -> tuple[Kind, str] | None:
    if isinstance(part, RefusalPart):
        return _KINDS[part.type], part.refusal
    if isinstance(part, TextPart):
        return _KINDS[part.type], part.text
    return None


def _texts(item: Item) -> Iterator[tuple[int, Kind, str]]:
    """Every text in an item: its content index (or summary index), kind and text."""
    if isinstance(item, MessageItem | ReasoningItem):
        groups = [item.content or [], (item.summary or []) if isinstance(item, ReasoningItem) else []]
        for group in groups:
            for index, part in enumerate(group):
                found = _text(part)
                if found is not None:
                    yield index, *found


def _item_id(item: Item) -> str | None:
    return item.id if isinstance(item, MessageItem | ReasoningItem) else None


def on_created(event: ResponseCreated, origin: Origin) -> Iterator[Effect]:
    """`response.created` says which model answers, and for whom."""
    response = event.response
    if origin.response_id is not None:
        yield Learned(
            origin.stream_key(None),
            None if response.model is None else repair(response.model),
            None if response.safety_identifier is None else repair(response.safety_identifier),
        )


def on_content_part_done(event: ContentPartDone, origin: Origin) -> Iterator[Effect]:
    """`response.content_part.done` has a full copy of one part."""
    found = _text(event.part)
    if found is not None:
        kind, text = found
        part = PartKey(origin.stream_key(event.item_id), event.output_index, event.content_index, kind)
        yield Closing(part, Rank.CONTENT_PART, text, event.item_id)


def on_output_item_done(event: OutputItemDone, origin: Origin) -> Iterator[Effect]:
    """`response.output_item.done` has full copies of an item's parts, and closes what it has none of."""
    item_id = _item_id(event.item)
    if origin.response_id is None and item_id is None and not any(_texts(event.item)):
        return  # a tool call, or the like, of a producer that gives no response id: nothing of ours
    key = origin.stream_key(item_id)
    for index, kind, text in _texts(event.item):
        if text:
            yield Closing(PartKey(key, event.output_index, index, kind), Rank.OUTPUT_ITEM, text, item_id)
    scope = event.output_index if key.by == "response" else None
    yield Ending(key, scope, "completed")


def on_completed(event: ResponseCompleted, origin: Origin) -> Iterator[Effect]:
    """`response.completed` ends the response; its output, where it has any, is a full copy."""
    copies = tuple(
        Copy(_item_id(item), position, index, kind, text)
        for position, item in enumerate(event.response.output or [])
        for index, kind, text in _texts(item)
    )
    yield from _end(event.response, origin, "completed", None, copies)


def on_incomplete(event: ResponseIncomplete, origin: Origin) -> Iterator[Effect]:
    """`response.incomplete` ends the response early, for a reason."""
    detail = event.response.incomplete_details
    yield from _end(event.response, origin, "incomplete", detail.reason if detail else None)


def on_failed(event: ResponseFailed, origin: Origin) -> Iterator[Effect]:
    """`response.failed` ends the response with an error."""
    error = event.response.error
    yield from _end(event.response, origin, "failed", (error.code or error.type) if error else None)


def on_error(event: ErrorEvent, origin: Origin) -> Iterator[Effect]:
    """`error` ends the response too; a `response.failed` that follows it is the same failure."""
    code = event.code or (event.error and (event.error.code or event.error.type))
    yield from _end(ResponseSnapshot(), origin, "failed", code or None)


def _end(
    response: ResponseSnapshot,
    origin: Origin,
    status: Status,
    reason: str | None,
    copies: tuple[Copy, ...] = (),
) -> Iterator[Effect]:
    reason = None if reason is None else repair(reason)
    if origin.response_id is not None:
        yield Ending(origin.stream_key(None), None, status, reason, copies)
        return
    for item in response.output or []:
        item_id = _item_id(item)
        if item_id is not None:
            yield Ending(
                StreamKey("item", item_id),
                None,
                status,
                reason,
                tuple(copy for copy in copies if copy.item_id == item_id),
            )


handler = Handler(
    name="lifecycle",
    routes=(
        Route(ResponseCreated, on_created),
        Route(ContentPartDone, on_content_part_done),
        Route(OutputItemDone, on_output_item_done),
        Route(ResponseCompleted, on_completed),
        Route(ResponseIncomplete, on_incomplete),
        Route(ResponseFailed, on_failed),
        Route(ErrorEvent, on_error),
    ),
)
