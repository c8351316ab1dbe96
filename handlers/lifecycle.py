"""What closes parts from outside: full copies of a part or an item, and the end of the response.

A copy counts for text too: some servers send no deltas, or no `.done`. An event that ends a response
closes whatever of it is open; where its producer gave no response id, the items in its final copy say
which streams it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from deltaloom import limits
from deltaloom.events import (
    ContentPartDone,
    ErrorDetail,
    ErrorEvent,
    Item,
    MessageItem,
    OutputItemDone,
    Part,
    ReasonDetail,
    ReasoningItem,
    RefusalPart,
    ResponseCancelled,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseSnapshot,
    TextPart,
)
from deltaloom.reasons import STOPPED, KnownReasonClass, reason_class
from handlers.core.effects import Closing, Copy, Effect, Ending, Learned, Origin, Rank
from handlers.core.identity import PartKey, StreamKey
from handlers.core.routing import Handler, Route
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import Kind, Status
    from deltaloom.reasons import ReasonClass

_KINDS: dict[str, Kind] = {
    "refusal": "refusal",
    "output_text": "output_text",
    "reasoning_text": "reasoning",
    "summary_text": "reasoning_summary",
}
"""From the type of a content part to the kind of text in it."""


_KNOWN_CLASSES = {name.casefold(): name for name in get_args(KnownReasonClass)}


def _text(part: Part) -> tuple[Kind, str] | None:
    if isinstance(part, RefusalPart):
        return _KINDS[part.type], part.refusal or ""
    if isinstance(part, TextPart):
        return _KINDS[part.type], part.text or ""
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
    response = event.response
    copies = tuple(
        Copy(_item_id(item), position, index, kind, text)
        for position, item in enumerate(response.output or [])
        for index, kind, text in _texts(item)
    )
    yield from _end(response, origin, "completed", None, copies)


def on_incomplete(event: ResponseIncomplete, origin: Origin) -> Iterator[Effect]:
    """`response.incomplete` ends the response early, for a reason."""
    response = event.response
    detail = response.incomplete_details
    yield from _end(response, origin, "incomplete", detail.reason if detail else None)


def on_failed(event: ResponseFailed, origin: Origin) -> Iterator[Effect]:
    """`response.failed` ends the response with an error."""
    response = event.response
    error = response.error
    yield from _end(response, origin, "failed", (error.code or error.type) if error else None)


def on_cancelled(event: ResponseCancelled, origin: Origin) -> Iterator[Effect]:
    """`response.cancelled` ends the response: the client left, or somebody asked for it."""
    response = event.response
    detail, error = response.incomplete_details, response.error
    reason = (detail.reason if detail else None) or (error.code if error else None)
    yield from _end(response, origin, "cancelled", reason or "cancelled")


def on_error(event: ErrorEvent, origin: Origin) -> Iterator[Effect]:
    """`error` ends the response too; a `response.failed` that follows it is the same failure."""
    code = event.code or (event.error and (event.error.code or event.error.type))
    error = event.error or ErrorDetail(message=event.message)
    yield from _end(ResponseSnapshot(error=error), origin, "failed", code or None)


def _class_of(status: Status, reason: str | None, given: str | None, origin: Origin) -> ReasonClass | None:
    """Return the class of a response's end: the one that the producer gives, else the table's."""
    if status == "completed":
        return None
    if status == "cancelled":
        return "cancelled"
    if given and len(given) <= limits.REASON:
        return _KNOWN_CLASSES.get(given.casefold()) or repair(given)
    if reason is None:
        return "error" if status == "failed" else "unknown"
    return reason_class(reason, provider=origin.context.provider)


def _detail_of(response: ResponseSnapshot) -> ReasonDetail:
    """Return what the producer added to a reason, of the detail that has anything of it."""
    for detail in (response.incomplete_details, response.error):
        if detail and (detail.reason_class or detail.provider_category or detail.provider_explanation):
            return detail
    return ReasonDetail()


def _end(
    response: ResponseSnapshot,
    origin: Origin,
    status: Status,
    reason: str | None,
    copies: tuple[Copy, ...] = (),
) -> Iterator[Effect]:
    reason = None if reason is None else repair(reason)
    error = response.error
    detail = _detail_of(response)
    ending_class = _class_of(status, reason, detail.reason_class, origin)
    if ending_class == "cancelled":
        status = "cancelled"
    explanation = detail.provider_explanation
    if explanation is None and error is not None and ending_class in {*STOPPED, "refusal"}:
        explanation = error.message
    ending = Ending(
        StreamKey("response", origin.response_id or ""),
        None,
        status,
        reason,
        copies,
        ending_class,
        None if detail.provider_category is None else repair(detail.provider_category),
        None if explanation is None else repair(explanation),
        class_left_out=len(detail.reason_class or "") > limits.REASON,
    )
    if origin.response_id is not None:
        yield ending
        return
    for item in response.output or []:
        item_id = _item_id(item)
        if item_id is not None and len(item_id) <= limits.ID:  # a longer one never opened anything
            own = tuple(copy for copy in copies if copy.item_id == item_id)
            yield ending._replace(stream_key=StreamKey("item", item_id), copies=own)


handler = Handler(
    name="lifecycle",
    routes=(
        Route(ResponseCreated, on_created),
        Route(ContentPartDone, on_content_part_done),
        Route(OutputItemDone, on_output_item_done),
        Route(ResponseCompleted, on_completed),
        Route(ResponseIncomplete, on_incomplete),
        Route(ResponseFailed, on_failed),
        Route(ResponseCancelled, on_cancelled),
        Route(ErrorEvent, on_error),
    ),
)
