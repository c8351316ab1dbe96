"""Copy one stream: hold what the caller gets, translate it afterwards, and offer its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, cast

from deltaloom.dialects import Translator
from deltaloom.reasons import REFUSED, STOPPED
from deltaloom.teeing.counting import counters
from deltaloom.teeing.sdk_events import error_of, message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deltaloom.dialects import EndReason, Event

ContextValue = str | None


class CopyContext(TypedDict, total=False):
    """Context of a response. A function is called when the response begins, to get the value."""

    tenant: ContextValue | Callable[[], ContextValue]
    reference: ContextValue | Callable[[], ContextValue]
    safety_identifier: ContextValue | Callable[[], ContextValue]
    traceparent: ContextValue | Callable[[], ContextValue]
    provider: ContextValue | Callable[[], ContextValue]
    model: ContextValue | Callable[[], ContextValue]
    upstream_provider: ContextValue | Callable[[], ContextValue]


class OfferedStream(Protocol):
    """The stream of one response at a publisher. Its methods neither block nor raise."""

    def offer(self, events: Sequence[Event]) -> None:
        """Publish events."""
        ...

    def end(self) -> None:
        """End the stream: no further events follow."""
        ...


class EventPublisher(Protocol):
    """Publishes the events of responses. Its methods neither block nor raise."""

    def stream(  # noqa: PLR0913 - context by name
        self,
        response_id: str | None = None,
        *,
        tenant: str | None = None,
        reference: str | None = None,
        safety_identifier: str | None = None,
        traceparent: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        upstream_provider: str | None = None,
        dialect: str | None = None,
        upstream_response_id: str | None = None,
    ) -> OfferedStream:
        """Begin the stream of a response."""
        ...


_CONTEXT: Final = frozenset(CopyContext.__annotations__)
_BEGINNINGS: Final = frozenset({"response.created", "message_start", "message-start"})
"""Types of events that begin a response, of dialects that have them."""

_TRANSLATED: Final = ("provider", "model", "dialect", "upstream_response_id")
"""Context that the translator finds in the answer."""

_UNFINISHED: Final = frozenset({"queued", "in_progress"})
_NOTHING: Final = object()
_ERROR_STATUS: Final = 400


def checked_context(context: Mapping[str, Any]) -> CopyContext:
    """Return the context.

    Raises:
        TypeError: a name is unknown.
    """
    if unknown := context.keys() - _CONTEXT:
        raise TypeError(f"context {min(unknown)!r:.80} is unknown; known are {', '.join(sorted(_CONTEXT))}")
    return cast("CopyContext", dict(context))


def reason_of(error: BaseException) -> EndReason:
    """Return how a stream ended that raised this exception."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        return "complete"
    # GeneratorExit, KeyboardInterrupt and the cancellation of a task mean that the caller left.
    return "interrupted" if isinstance(error, Exception) else "cancelled"


class StreamCopy:
    """Copies one stream. No method raises an Exception: faults are counted, and end the copy.

    Args:
        publisher: publisher of the events.
        context: context of the responses.
        **translation: arguments of the translator.
    """

    def __init__(self, publisher: EventPublisher, context: CopyContext, **translation: Any) -> None:
        self._publisher = publisher
        self._only_blocks = translation.get("status", 0) >= _ERROR_STATUS
        """True for an HTTP error: it is copied only if a policy is its reason, since clients repeat requests
        that failed for another one."""
        self._held: Any = _NOTHING
        """The item that the caller has and the copy lacks."""
        self._stream: OfferedStream | None = None
        self._kept: list[Event] = []
        """Events of an HTTP error."""
        self._is_over = False
        self._context: dict[str, str | None] = {}
        self._translation = translation
        self._translator: Translator | None = None
        try:
            self._context = {name: _value(given) for name, given in context.items()}
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            counters.fault(error)

    def hold(self, item: Any) -> None:
        """Hold an item that the caller gets now: bytes of a body, or an event of an SDK."""
        if self._is_over:
            return
        try:
            # Parsers empty such a buffer, or fill it again, before they ask for the next one.
            self._held = bytes(item) if isinstance(item, bytearray | memoryview) else item
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            self._break(error)

    def take(self) -> None:
        """Copy the item that is held."""
        item, self._held = self._held, _NOTHING
        if item is _NOTHING or self._is_over:
            return
        try:
            self._offer(self._translate(item))
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            self._break(error)

    def end(self, reason: EndReason, error: BaseException | None = None) -> None:
        """Copy the item that is held, and end the copy, once.

        Args:
            reason: how the stream ended.
            error: the exception that ended it. If an SDK has put the provider's error into it, the copy ends
                with that error.
        """
        self.take()
        if self._is_over:
            return
        self._is_over = True
        if self._translator is None:  # nothing has come
            return
        try:
            if (body := error_of(error)) is not None:
                self._offer(self._translator.feed_message(body))
            self._offer(self._translator.end(reason))
            self._offer_block()
        except Exception as fault:  # noqa: BLE001 - no fault of the copy may reach the caller
            counters.fault(fault)
        self._end_stream()

    def _translate(self, item: Any) -> list[Event]:
        if isinstance(item, bytes):
            return self._translator_now().feed(item)
        if isinstance(item, str):
            return self._translator_now().feed(item.encode(errors="replace"))
        message = message_of(item)
        if message is None:
            return []
        translator = self._translator_now()
        if translator.is_over and message.get("type") in _BEGINNINGS:  # agents answer several times
            self._end_stream()
            self._translator = None
        return self._translator_now().feed_message(message)

    def _translator_now(self) -> Translator:
        if self._translator is None:
            self._translator = Translator(**self._translation, provider=self._context.get("provider"))
        return self._translator

    def _offer(self, events: Sequence[Event]) -> None:
        if self._only_blocks:
            self._kept += events
            return
        if not events or self._translator is None or _is_unfinished(events):
            return
        if self._stream is None:
            known = self._translator.context
            fields = {name: known.get(name) for name in _TRANSLATED} | self._context
            self._stream = self._publisher.stream(self._translator.response_id, **fields)
            counters.begin_response()
        self._stream.offer(events)
        if self._translator.is_over:  # an SDK that stops here may close the stream late, or never
            self._end_stream()

    def _offer_block(self) -> None:
        """Offer the events of an HTTP error if a policy is its reason."""
        if not self._only_blocks:
            return
        events, self._kept, self._only_blocks = self._kept, [], False
        if any(_is_block(event.get("response", {}).get("error") or {}) for event in events):
            self._offer(events)
        else:
            counters.leave_out_error()

    def _break(self, error: Exception) -> None:
        """Count a fault and end the copy. The response's own end is unknown, so none is written."""
        self._is_over = True
        counters.fault(error)
        self._end_stream()

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        counters.end_response()
        try:
            stream.end()
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            counters.fault(error)


def _is_block(error: Mapping[str, Any]) -> bool:
    """Return True if the content was the reason of an error; technical errors may have a class too."""
    return error.get("reason_class") in REFUSED | STOPPED


def _value(given: Any) -> str | None:
    """Return the value of a context, which a function may give."""
    value = given() if callable(given) else given
    return None if value is None else str(value)


def _is_unfinished(events: Sequence[Event]) -> bool:
    """Return True for the answer of a response that goes on in the background: it has no end yet."""
    last = events[-1]
    return last["type"] == "response.done" and last["response"].get("status") in _UNFINISHED
