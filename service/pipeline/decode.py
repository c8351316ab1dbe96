"""Decode an entry into its events, one by one: the slow path. A bad event does not affect the others.

An entry holds one event or an array of events as JSON, or one event as flat fields. Flat fields are all
strings, so numbers are parsed from their digits. `service.pipeline.fitting` leaves out odd fields.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from pydantic_core import from_json

from deltaloom import limits
from handlers.core.effects import CONTEXT_NAMES, ContextValues
from service.pipeline.arrays import MAX_STRUCTURE, TooMuchStructureError, elements_of
from service.pipeline.fitting import NoFitError, fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import DeadLetterReason
    from handlers.core.routing import Route
    from service.pipeline.fitting import Fitted
    from service.ports.storage import Entry

END_MARK = b"[DONE]"
"""Last data line of a stream of server-sent events. Producers that forward every line publish it too.

An entry with only this line is read as one event whose type is this text.
"""

_NAME_LENGTH = 40
"""Maximum characters of the name of an entry's field in an error."""

_TOO_MUCH_STRUCTURE = (
    f"the entry's array has more than {MAX_STRUCTURE} brackets and commas, and cannot be parsed; "
    "publish fewer events in an entry"
)

_NESTED = ("response", "item", "part", "error")
_ENTRY_FIELDS = "publish it as the field event (JSON), as __data__, or as flat fields with a type"


_CONTEXT_FIELDS = tuple((name, name.encode()) for name in CONTEXT_NAMES)
"""Names of the context fields, as text and as the server sends them."""


class Unreadable(NamedTuple):
    """The reason and error of a dead letter about an entry or event that cannot be read."""

    reason: DeadLetterReason
    error: str


class Slot(NamedTuple):
    """An element of an entry's array, or the only element of an entry without an array.

    If `why` is None, `value` is an event: a dict whose `type` is a string. Otherwise the element cannot be
    read, `why` has the reason and error, and `value` has no use.
    """

    value: Any
    why: Unreadable | None = None


class Slots(Sequence[Slot]):
    """The elements of an entry, in order.

    An element of an array is parsed at each access and not kept. One that cannot be read raises no error: its
    slot has the reason in `why`.
    """

    def __init__(self, raws: Sequence[bytes], max_event_bytes: int, only: Slot | None = None) -> None:
        """Hold the elements.

        Args:
            raws: each element, as the producer wrote it; one empty string for an entry with flat fields.
            max_event_bytes: maximum bytes of an event.
            only: the parsed element of an entry without an array; None for an array.
        """
        self.raws = raws
        self._max_event_bytes = max_event_bytes
        self._only = only

    def __len__(self) -> int:
        return len(self.raws)

    @overload
    def __getitem__(self, position: int) -> Slot: ...
    @overload
    def __getitem__(self, position: slice) -> list[Slot]: ...
    def __getitem__(self, position: int | slice) -> Slot | list[Slot]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        raw = self.raws[position]
        if self._only is not None:
            return self._only
        try:
            return _slot(raw, self._max_event_bytes)
        except UnreadableError as error:
            return Slot(None, error.why)


class ProducerContext(NamedTuple):
    """The response id (None without one) and the context that a producer gave in an entry's metadata."""

    response_id: str | None
    context: ContextValues


class UnreadableError(ValueError):
    """An entry or event cannot be read; `why` has the reason and the error for its dead letter."""

    def __init__(self, reason: DeadLetterReason, error: str) -> None:
        super().__init__(error)
        self.why = Unreadable(reason, error)


def producer_context_of(entry: Entry) -> ProducerContext:
    """Return the response id and context in an entry's fields; the headers give what the fields do not have.

    Context values that are too long or are not UTF-8 are left out. If the others are too long together, the
    longest are left out until the rest fits. `truncated` has the names of all that were left out.

    Raises:
        UnreadableError: the response id is not UTF-8, or is too long.
    """
    response_id = _metadata(entry, "response_id")
    if response_id is not None and len(response_id) > limits.ID:
        raise UnreadableError(
            "invalid_event", f"the field response_id has {len(response_id)} characters; at most {limits.ID}"
        )
    fields, headers = entry.fields, entry.headers
    values = {
        name: value
        for name, raw in _CONTEXT_FIELDS
        if (raw in fields or name in headers) and (value := _context(entry, name)) is not None
    }
    kept = {name: value for name, value in values.items() if 0 < len(value) <= limits.CONTEXT[name]}
    if _MOST_BYTES * sum(map(len, kept.values())) > limits.CONTEXT_BYTES:
        sizes = {name: _bytes_of(value) for name, value in kept.items()}
        while sum(sizes.values()) > limits.CONTEXT_BYTES:
            longest = max(sizes, key=lambda name: sizes[name])
            del sizes[longest], kept[longest]
    return ProducerContext(
        response_id, ContextValues(**kept, truncated=tuple(sorted(values.keys() - kept.keys())))
    )


_CONTROL = bytes(range(32))

_MOST_BYTES = 6
"""Maximum of `_bytes_of` for a character."""


def _bytes_of(value: str) -> int:
    """Return the size of a value for `limits.CONTEXT_BYTES`: UTF-8 bytes, six for each control character."""
    data = value.encode("utf-8", "surrogatepass")
    return len(data) + 5 * (len(data) - len(data.translate(None, _CONTROL)))


def _context(entry: Entry, name: str) -> str | None:
    """Return a context field; None if it is empty or missing, an empty string if it is not UTF-8."""
    try:
        return _metadata(entry, name)
    except UnreadableError:
        return ""


def _metadata(entry: Entry, name: str) -> str | None:
    """Return the entry's field of this name; without such a field, its header of this name.

    None means that the value is empty or missing. An empty field hides the header.

    Raises:
        UnreadableError: the field is not UTF-8.
    """
    raw = entry.fields.get(name.encode())
    return (entry.headers.get(name) if raw is None else _utf8(name, raw)) or None


def events_of(entry: Entry, max_event_bytes: int, max_array_length: int) -> Slots:
    """Return an entry's events, in order; a bad event of an array has its error in its slot.

    An empty array has no events.

    Raises:
        UnreadableError: the body is not JSON, its array has more than `max_array_length` events or too much
            structure to split, or the flat fields have no type or are not UTF-8.
    """
    if entry.body is None:
        return Slots([b""], max_event_bytes, _flat(entry, max_event_bytes))
    body = entry.body
    if body.strip() == END_MARK:
        return Slots([body], max_event_bytes, Slot({"type": END_MARK.decode()}))
    try:
        raws = elements_of(body, max_array_length)
    except TooMuchStructureError:
        raise UnreadableError("oversized", _TOO_MUCH_STRUCTURE) from None
    if raws is None:
        return Slots([body], max_event_bytes, _slot(body, max_event_bytes))
    if len(raws) > max_array_length:
        raise UnreadableError("oversized", f"the entry's array has more than {max_array_length} events")
    return Slots(raws, max_event_bytes)


def _slot(raw: bytes, max_event_bytes: int) -> Slot:
    """Parse one event. The slot has an error if the JSON is no event, or has more than `max_event_bytes`.

    Raises:
        UnreadableError: an event that is not too large is not JSON.
    """
    if len(raw) > max_event_bytes:
        return Slot(None, _oversized(len(raw), max_event_bytes))
    return _checked(_parsed(raw))


def _oversized(size: int, max_event_bytes: int) -> Unreadable:
    return Unreadable("oversized", f"the event has {size} bytes; at most {max_event_bytes}")


def fitted(route: Route, event: dict[str, Any], *, strict: bool) -> Fitted:
    """Validate an event by its model; return it with the names of the fields that were left out.

    Args:
        route: the route of the event's type.
        event: the event.
        strict: False for flat fields, so that the model reads numbers from strings.

    Raises:
        UnreadableError: the event does not fit, mostly because a required field is missing or wrong.
    """
    try:
        return fit(route.model, event, strict=strict)
    except NoFitError as error:
        raise UnreadableError("invalid_event", f"{route.event_type}: {error}") from None


def _checked(value: Any) -> Slot:
    if not isinstance(value, dict):
        return Slot(value, Unreadable("invalid_event", f"an event is a JSON object, not {_json_name(value)}"))
    if is_error(value):
        return Slot({**value, "type": "error"})
    if not isinstance(value.get("type"), str):
        return Slot(value, Unreadable("invalid_event", "the event's type is missing, or is not a string"))
    return Slot(value)


def is_error(value: Mapping[str, Any]) -> bool:
    """Return whether `type` is no string, but `error` is an object or a string that is not empty.

    Gateways end a stream with one. It is read as an event of type `error`.
    """
    error = value.get("error")
    return not isinstance(value.get("type"), str) and isinstance(error, dict | str) and error != ""


def _flat(entry: Entry, max_event_bytes: int) -> Slot:
    if b"type" not in entry.fields and not entry.fields.get(b"error"):
        names = ", ".join(sorted(_identifier(name) for name in entry.fields)[:10])
        raise UnreadableError("invalid_event", f"no event in the entry's fields ({names}): {_ENTRY_FIELDS}")
    size = sum(map(len, entry.fields.values()))
    if size > max_event_bytes:
        return Slot(None, _oversized(size, max_event_bytes))
    event: dict[str, Any] = {}
    for raw_name, raw in entry.fields.items():
        name = _utf8("name", raw_name)
        try:
            value: Any = _utf8(name, raw)
        except UnreadableError:
            if name in CONTEXT_NAMES:  # `producer_context_of` has left it out and recorded that
                continue
            raise
        event[name] = _parsed(raw) if name in _NESTED and value.startswith("{") else value
    return _checked(event)


def _identifier(name: bytes) -> str:
    """Return a field's name for an error; `…` in place of a name that is long or not an identifier."""
    text = name[: _NAME_LENGTH + 1].decode(errors="replace")
    return text if text.isidentifier() and len(text) <= _NAME_LENGTH else "…"


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        # The fast parser refuses a lone surrogate, which a split emoji leaves in a delta.
        try:
            return json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UnreadableError("malformed_json", f"not UTF-8 at byte {error.start}") from None
        except json.JSONDecodeError as error:
            what = error.msg.removesuffix(" starting at")
            raise UnreadableError("malformed_json", f"not JSON at character {error.pos}: {what}") from None
        except (ValueError, RecursionError) as error:
            raise UnreadableError("malformed_json", f"JSON beyond limits: {type(error).__name__}") from None


def _utf8(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            "invalid_event", f"the field {name[:_NAME_LENGTH]} is not UTF-8 at byte {error.start}"
        ) from None


def _json_name(value: Any) -> str:
    names: dict[type, str] = {str: "a string", bool: "a boolean", type(None): "null", list: "an array"}
    return names.get(type(value), "a number")
