"""Handle the events that close parts from outside: copies of a part or an item, and the end of the response.

A copy also gives the text, since some servers send no deltas or no `.done`. The text of an event that begins
a part is used only if the response has no other text of its kind: normally it is empty, or the deltas
repeat it.

An event that ends a response closes all of its open parts. Without a response id from the producer, it closes
the parts of the items in its final copy.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, get_args

from deltaloom import limits
from deltaloom.events import (
    ContentPartAdded,
    ContentPartDone,
    ErrorCause,
    ErrorCodes,
    ErrorDetail,
    ErrorEvent,
    Item,
    MessageItem,
    OutputItemAdded,
    OutputItemDone,
    Part,
    ReasonDetail,
    ReasoningItem,
    ReasoningPartAdded,
    ReasoningPartDone,
    ReasoningSummaryPartAdded,
    ReasoningSummaryPartDone,
    RefusalPart,
    ResponseCanceled,
    ResponseCancelled,
    ResponseCompleted,
    ResponseCreated,
    ResponseDone,
    ResponseErrorEvent,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
    ResponseSnapshot,
    TextPart,
)
from deltaloom.kinds import KINDS
from deltaloom.reasons import REFUSED, STOPPED, KnownReasonClass, reason_class
from handlers.core.effects import Announced, Closing, Copy, Effect, Ending, Learned, Origin, Rank
from handlers.core.identity import PartKey, StreamKey
from handlers.core.routing import Handler, Route
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltaloom.messages import Kind, Status
    from deltaloom.reasons import ReasonClass

    AnyEnd = (
        ResponseCompleted
        | ResponseDone
        | ResponseIncomplete
        | ResponseFailed
        | ResponseCancelled
        | ResponseCanceled
    )
    PartAdded = ContentPartAdded | ReasoningPartAdded | ReasoningSummaryPartAdded
    PartDone = ContentPartDone | ReasoningPartDone | ReasoningSummaryPartDone

_KINDS: dict[str, Kind] = {kind.part_type: kind.name for kind in KINDS.values() if kind.part_type}
"""Kind of text by the type of its content part."""


_DECLINED = STOPPED | REFUSED
"""Reason classes of responses that were refused, or stopped because of their content."""

_KNOWN_CLASSES = {name.casefold(): name for name in get_args(KnownReasonClass)}


def _text(part: Part) -> tuple[Kind, str] | None:
    if isinstance(part, RefusalPart):
        return _KINDS[part.type], part.refusal or ""
    if isinstance(part, TextPart):
        return _KINDS[part.type], part.text or ""
    return None


def _texts(item: Item) -> Iterator[tuple[int, Kind, str]]:
    """Yield each text in an item: content index (or summary index), kind and text."""
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
    """Learn the model and the safety identifier from `response.created`."""
    if origin.response_id is not None:
        yield _learned(event.response, origin)


def on_response(event: ResponseEvent, origin: Origin) -> Iterator[Effect]:
    """Learn the model and the safety identifier from a later event, in case `response.created` is missing."""
    response = event.response
    if origin.response_id is not None and (response.model or response.safety_identifier):
        yield _learned(response, origin)


def _learned(response: ResponseSnapshot, origin: Origin) -> Learned:
    return Learned(
        origin.stream_key(None),
        None if response.model is None else repair(response.model),
        None if response.safety_identifier is None else repair(response.safety_identifier),
    )


def on_part_done(event: PartDone, origin: Origin) -> Iterator[Effect]:
    """Close a part with the full copy in its `.done` event."""
    found = _text(event.part)
    if found is not None:
        kind, text = found
        part = PartKey(origin.stream_key(event.item_id), event.output_index, event.index, kind)
        yield Closing(part, Rank.CONTENT_PART, text, event.item_id)


def on_output_item_done(event: OutputItemDone, origin: Origin) -> Iterator[Effect]:
    """Close an item's parts with the full copies in `response.output_item.done`; end the item."""
    item_id = _item_id(event.item)
    if origin.response_id is None and item_id is None and not any(_texts(event.item)):
        return  # an item without texts or id, such as a tool call, and no response id: no effect
    key = origin.stream_key(item_id)
    places = []
    for index, kind, text in _texts(event.item):
        if text:
            yield Closing(PartKey(key, event.output_index, index, kind), Rank.OUTPUT_ITEM, text, item_id)
            places.append(Copy(None, event.output_index, index, kind, ""))
    scope = event.output_index if key.by == "response" else None
    yield Ending(key, scope, "completed", copies=tuple(places))


def on_output_item_added(event: OutputItemAdded, origin: Origin) -> Iterator[Effect]:
    """Announce the texts of `response.output_item.added`, if it has any."""
    item_id = None if event.item is None else _item_id(event.item)
    texts = [] if event.item is None else _texts(event.item)
    yield from _announced(origin, item_id, event.output_index, texts)


def on_part_added(event: PartAdded, origin: Origin) -> Iterator[Effect]:
    """Announce the text of an event that begins a part, if it has one."""
    found = None if event.part is None else _text(event.part)
    texts = [] if found is None else [(event.index, *found)]
    yield from _announced(origin, event.item_id, event.output_index, texts)


def _announced(
    origin: Origin, item_id: str | None, output_index: int, texts: Iterable[tuple[int, Kind, str]]
) -> Iterator[Effect]:
    copies = tuple(Copy(item_id, output_index, index, kind, text) for index, kind, text in texts if text)
    known = origin.response_id is not None or (item_id is not None and len(item_id) <= limits.ID)
    if copies and known:
        yield Announced(origin.stream_key(item_id), copies)


_STATUS_OF_TYPE: dict[str, Status] = {
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.canceled": "cancelled",
}

_STATUSES: dict[str, Status] = {
    "incomplete": "incomplete",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}


def on_end(event: AnyEnd, origin: Origin) -> Iterator[Effect]:
    """End the response. The status follows from the event type, else from the response's own status.

    The response's output is a full copy of its texts.
    """
    response = event.response
    if response.error is None and event.error is not None:
        response = response.model_copy(update={"error": event.error})
    given = (response.status or "").casefold()
    status = _STATUS_OF_TYPE.get(event.type) or _STATUSES.get(given, "completed")
    reasons = _reasons(response.error)
    if response.incomplete_details is not None:
        reason = [response.incomplete_details.reason, *_quoted(response.incomplete_details.reason)]
        reasons = reasons + reason if status == "failed" else reason + reasons
    yield from on_response(event, origin)
    yield from _end(response, origin, status, _most_specific(reasons, origin))


def on_error(event: ErrorEvent | ResponseErrorEvent, origin: Origin) -> Iterator[Effect]:
    """End the response as failed. A `response.failed` after it reports the same failure."""
    outer = ErrorDetail(code=event.code, message=event.message, innererror=event.innererror)
    reasons = _reasons(outer) + _reasons(event.error)
    yield from _end(
        ResponseSnapshot(error=event.error or outer), origin, "failed", _most_specific(reasons, origin)
    )


def _reasons(error: ErrorCodes | None) -> list[str | None]:
    """Return the values of an error that may be the reason of a response's end, the outermost first."""
    if error is None:
        return []
    found = [error.code, error.type, *_quoted(error.code)]
    if isinstance(error, ErrorCause):
        found += [*_reasons(error.innererror), *_reasons(error.error)]
    if isinstance(error, ErrorDetail):
        found += [
            *_reasons(error.provider_specific_fields),
            *_known([error.message]),
            *_quoted(error.message),
        ]
    return found


_MAX_QUOTED: Final = 65_536
"""Maximum characters of a string that is parsed as JSON."""

_QUOTED_DEPTH: Final = 4
"""Maximum levels of nested errors that are searched."""
_CODES = ("code", "type", "reason", "message")
_CAUSES = ("error", "innererror", "provider_specific_fields")


def _quoted(text: str | None) -> list[str]:
    """Return the known reasons in an error that a gateway quotes as JSON in a string."""
    if text is None or len(text) > _MAX_QUOTED or not text.lstrip().startswith("{"):
        return []
    try:
        return _known(_values(json.loads(text), _QUOTED_DEPTH))
    except (ValueError, RecursionError):  # not JSON after all
        return []


def _values(error: Any, depth: int) -> Iterator[str]:
    """Yield the values of a quoted error that may be the reason of a response's end, the outermost first."""
    if not isinstance(error, dict) or not depth:
        return
    yield from (value for name in _CODES if isinstance(value := error.get(name), str))
    for name in _CAUSES:
        yield from _values(error.get(name), depth - 1)


def _known(values: Iterable[str | None]) -> list[str]:
    """Return the values that the table of reasons has."""
    return [value for value in values if value and reason_class(value) != "unknown"]


def _most_specific(reasons: Sequence[str | None], origin: Origin) -> str | None:
    """Return the most specific reason of a response's end; None if there is none.

    A value that means a refusal or a stop is preferred at any position: many gateways put the HTTP status or
    a general code before it. If the first value is a number, the first known value replaces it.
    """
    given = [reason for reason in reasons if reason]
    stopped = (each for each in given if reason_class(each, provider=origin.context.provider) in _DECLINED)
    found = next(stopped, None)
    if found is None and given and given[0].isdecimal():
        found = next(iter(_known(given)), None)
    return found or next(iter(given), None)


def _class_of(status: Status, reason: str | None, given: str | None, origin: Origin) -> ReasonClass | None:
    """Return the reason class of a response's end; None if it completed.

    The class that the producer gives goes before the class of the table.
    """
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
    """Return the first detail with a class, category or explanation from the producer; else an empty one."""
    for detail in (response.incomplete_details, response.error):
        if detail and (detail.reason_class or detail.provider_category or detail.provider_explanation):
            return detail
    return ReasonDetail()


def _end(
    response: ResponseSnapshot,
    origin: Origin,
    status: Status,
    reason: str | None,
) -> Iterator[Effect]:
    copies = tuple(
        Copy(_item_id(item), position, index, kind, text)
        for position, item in enumerate(response.output or [])
        for index, kind, text in _texts(item)
    )
    if status == "cancelled":
        reason = reason or "cancelled"
    reason = None if reason is None or status == "completed" else repair(reason)
    error = response.error
    detail = _detail_of(response)
    ending_class = _class_of(status, reason, detail.reason_class, origin)
    if ending_class == "cancelled":
        status = "cancelled"
    explanation = detail.provider_explanation
    if explanation is None and error is not None and ending_class in _DECLINED:
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
        if item_id is not None and len(item_id) <= limits.ID:  # no part has a longer one
            own = tuple(copy for copy in copies if copy.item_id == item_id)
            yield ending._replace(stream_key=StreamKey("item", item_id), copies=own)


handler = Handler(
    name="lifecycle",
    routes=(
        Route(ResponseCreated, on_created),
        Route(ResponseQueued, on_response),
        Route(ResponseInProgress, on_response),
        Route(OutputItemAdded, on_output_item_added),
        Route(ContentPartAdded, on_part_added),
        Route(ReasoningPartAdded, on_part_added),
        Route(ReasoningSummaryPartAdded, on_part_added),
        Route(ContentPartDone, on_part_done),
        Route(ReasoningPartDone, on_part_done),
        Route(ReasoningSummaryPartDone, on_part_done),
        Route(OutputItemDone, on_output_item_done),
        Route(ResponseCompleted, on_end),
        Route(ResponseDone, on_end),
        Route(ResponseIncomplete, on_end),
        Route(ResponseFailed, on_end),
        Route(ResponseCancelled, on_end),
        Route(ResponseCanceled, on_end),
        Route(ErrorEvent, on_error),
        Route(ResponseErrorEvent, on_error),
    ),
)
