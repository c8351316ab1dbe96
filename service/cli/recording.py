"""Translate a recording, which may hold several responses one after the other.

A translator translates one response. The recording is divided into messages here, and each message that
begins another response gets a translator of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deltaloom.dialects import dialect_named
from deltaloom.dialects.framing import BOM, DONE, JsonValues, ServerSentEvents, WireMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from deltaloom.dialects import Translator
    from deltaloom.dialects.framing import Framing

Events = list[dict[str, Any]]

_FRAME = b"\0"
"""First byte of a frame of an AWS event stream."""

_PHRASES = 200
"""Maximum phrases for data that were left out."""


class Recording:
    """The responses of a recording, in their order.

    Frames of AWS event streams are not divided: a second response in them is left out by its translator.

    Args:
        make: makes the translator of the next response.
        only_one: True to leave out all responses after the first.
    """

    def __init__(self, make: Callable[[], Translator], *, only_one: bool = False) -> None:
        self._make = make
        self._only_one = only_one
        self._first = b""
        """The first bytes, until they show the framing."""
        self._framing: Framing | None = None
        self._is_divided = True
        self._translator = make()
        self._has_ended = False
        """True after a message with the end of the response; more messages of it may follow."""
        self._id = ""
        self._dialects: dict[str, None] = {}
        self._left_out: dict[str, int] = {}
        self.is_cut = False
        """True if responses after the first one were left out."""

    @property
    def dialects(self) -> list[str]:
        """Dialects of the responses so far."""
        own = self._translator.dialect
        return list(self._dialects | ({own: None} if own else {}))

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of times that something was left out, by a short phrase."""
        found = dict(self._left_out)
        for what, times in self._translator.left_out.items():
            found[what] = found.get(what, 0) + times
        return found

    def feed(self, data: bytes) -> Iterator[tuple[Translator, Events]]:
        """Yield the events that these bytes complete, with their translator."""
        if self._framing is None and self._is_divided:
            self._first += data
            if not self._choose_framing():
                return
            data, self._first = self._first, b""
        if self._framing is None:
            yield self._translator, self._translator.feed(data)
            return
        for message in self._framing.feed(data):
            yield from self._read(message)

    def end(self) -> Iterator[tuple[Translator, Events]]:
        """Yield the last events."""
        if self._framing is None:
            yield self._translator, self._translator.feed(self._first)
        else:
            for message in self._framing.end():
                yield from self._read(message)
        yield self._translator, self._translator.end()

    def _choose_framing(self) -> bool:
        """Choose the framing by the first bytes; return False if more are needed."""
        if self._first.startswith(_FRAME):
            self._is_divided = False
            return True
        text = self._first.removeprefix(BOM).lstrip()
        if not text or BOM.startswith(self._first):
            return False
        framing = JsonValues if text[:1] in {b"{", b"["} else ServerSentEvents
        self._framing = framing(self)
        return True

    def leave_out(self, what: str, times: int = 1) -> None:
        """Count data of the recording that are no message."""
        if what in self._left_out or len(self._left_out) < _PHRASES:
            self._left_out[what] = self._left_out.get(what, 0) + times

    def lose(self, what: str) -> None:
        """Count an unreadable message of the response that is being translated."""
        self._translator.lose(what)

    def _read(self, message: WireMessage) -> Iterator[tuple[Translator, Events]]:
        if self.is_cut:
            return
        if self._begins_another(message):
            yield self._translator, self._translator.end()
            if self._only_one:
                self.is_cut = True
                return
            self._forget_translator()
        self._note(message)
        yield self._translator, self._translator.feed(_bytes_of(message))

    def _forget_translator(self) -> None:
        before, self._translator = self._translator, self._make()
        self._has_ended, self._id = False, ""
        if before.dialect:
            self._dialects[before.dialect] = None
        for what, times in before.left_out.items():
            self.leave_out(what, times)

    def _begins_another(self, message: WireMessage) -> bool:
        """Return True if the response before has ended, and the message is the beginning of another one."""
        value, name = message.value, self._translator.dialect
        if not isinstance(value, dict) or name is None:
            return False
        dialect = dialect_named(name)
        if dialect.beginning:
            event_type = value.get("type") or message.event
            is_whole = event_type in {"", "message"} and dialect.recognises(value)
            begins = dialect.beginning in {event_type, *value} or is_whole
            return begins and (self._translator.is_over or self._has_ended)
        other = _id_of(value)
        if value.get("event_type") in _INTERACTION_BEGINS:
            return self._translator.is_over or self._has_ended or bool(self._id and other != self._id)
        if not dialect.recognises(value) or not _has_content(value):
            return False
        is_other = other not in {"", self._id} or "prompt_filter_results" in value
        return self._translator.is_over or (self._has_ended and is_other)

    def _note(self, message: WireMessage) -> None:
        """Note the id of the response, and its end."""
        value = message.value
        if message.value is DONE or not isinstance(value, dict):
            return
        self._id = self._id or _id_of(value)
        self._has_ended = self._has_ended or _has_end(value)


_INTERACTION_BEGINS = frozenset({"interaction.created", "interaction.start"})


def _id_of(value: Any) -> str:
    """Return the provider's id in a message of Chat Completions or Gemini; empty if it has none."""
    inner = value.get("response") or value.get("interaction")
    within = (inner.get("responseId"), inner.get("id")) if isinstance(inner, dict) else ()
    own = (value.get("id"), value.get("responseId"), *within)
    return next((each for each in own if isinstance(each, str) and each), "")


def _has_content(value: Any) -> bool:
    """Return False for a chunk of Chat Completions or Gemini that only has figures, which may come late."""
    fields = ("choices", "candidates", "promptFeedback", "prompt_filter_results")
    return any(map(value.get, fields)) or not {"choices", "candidates", "usageMetadata"} & value.keys()


def _has_end(value: Any) -> bool:
    """Return True if a message has the reason of a response's end."""
    inner = value.get("response")
    if isinstance(inner, dict) and "candidates" in inner:
        value = inner
    delta, feedback = value.get("delta"), value.get("promptFeedback")
    several = [*_objects(value.get("choices")), *_objects(value.get("candidates"))]
    return (
        "messageStop" in value
        or value.get("event_type") == "interaction.completed"
        or bool(value.get("error"))
        or (isinstance(delta, dict) and bool(delta.get("stop_reason")))
        or (isinstance(feedback, dict) and bool(feedback.get("blockReason")))
        or any(each.get("finish_reason") or each.get("finishReason") for each in several)
    )


def _objects(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def _bytes_of(message: WireMessage) -> bytes:
    """Return a message as a server-sent event, from which a translator reads the same message."""
    data = "[DONE]" if message.value is DONE else json.dumps(message.value)
    name = " ".join(message.event.split())
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()
