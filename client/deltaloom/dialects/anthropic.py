"""Translate Anthropic Messages.

A refusal has no text: `message_delta` has the `stop_reason` `refusal`, and `stop_details` may have a category
and an explanation. A block of type `fallback` says that another model answered in place of one that refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom import limits
from deltaloom.dialects.ends import ending_of, graver, gravest
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.writing import PARTS_LIMIT

if TYPE_CHECKING:
    from deltaloom.dialects.writing import Kind, ProviderEnding, ResponseWriter

_KINDS: dict[str, tuple[Kind, str]] = {
    "text": ("output_text", "text"),
    "thinking": ("reasoning", "thinking"),
    "text_delta": ("output_text", "text"),
    "thinking_delta": ("reasoning", "thinking"),
}
"""Kind and field of the text, by the type of a block or delta."""


class Anthropic:
    """Reads the messages of an Anthropic stream, or one whole answer."""

    PROVIDER = "anthropic"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._stop: Object = {}
        self._withheld: set[int] = set()
        """Blocks of thinking that have a signature."""
        self._has_fallen_back = False
        self._has_started = False
        self._has_ended = False
        """True after `message_stop`: some proxies give no reason."""

    def read(self, message: WireMessage) -> None:
        """Read one event."""
        if message.value is DONE:
            return
        event = object_at(message.value)
        event_type = text_at(event, "type") or message.event
        if event_type.startswith("content_block_"):
            self._read_block_event(event_type, index_at(event, "index"), event)
            return
        match event_type:
            case "message_start":
                self._start(object_at(event, "message"))
            case "message_delta":
                self._note_iterations(object_at(event, "usage"))
                new, old = text_at(event, "delta", "stop_reason"), text_at(self._stop, "stop_reason")
                if new and graver(new, old, provider=self.PROVIDER, field="stop_reason") == new:
                    self._stop = _stop_of(object_at(event, "delta"), self._stop)
            case "message_stop":
                self._has_ended = True
                self.finish()
            case "message":
                self._read_answer(event)
            case "error":
                error = error_ending(object_at(event, "error"), self._provider)
                self._writer.end(gravest(error, self._ending()))
            case "ping":
                pass
            case other:
                self._writer.leave_out(f"event {other[:80]!r}")

    def _read_block_event(self, event_type: str, index: int, event: Object) -> None:
        match event_type:
            case "content_block_start":
                self._start_block(index, object_at(event, "content_block"))
            case "content_block_delta":
                self._read_delta(index, object_at(event, "delta"))
            case "content_block_stop":
                self._stop_block(index)
            case other:
                self._writer.leave_out(f"event {other[:80]!r}")

    def finish(self) -> None:
        """Write the end of the response."""
        if not self._stop and not self._has_ended:
            self._writer.end(self._writer.interruption)
            return
        self._writer.end(self._ending())

    def _ending(self) -> ProviderEnding:
        details = object_at(self._stop, "stop_details")
        return ending_of(
            text_at(self._stop, "stop_reason"),
            provider=self.PROVIDER,
            field="stop_reason",
            category=text_at(details, "category"),
            explanation=text_at(details, "explanation"),
        )

    def _start(self, message: Object) -> None:
        """Begin the response. Some proxies send this event twice, with other ids: the first counts."""
        if self._has_started:
            self._writer.leave_out("second message_start")
            return
        self._has_started = True
        self._writer.begin(text_at(message, "model"), text_at(message, "id"))
        self._note_iterations(object_at(message, "usage"))

    def _start_block(self, index: int, block: Object) -> None:
        self._stop_block(index)  # a block with this index that was not stopped
        block_type = text_at(block, "type")
        if block_type == "redacted_thinking":
            self._writer.redacted()
        elif block_type == "fallback":
            self._fall_back(block)
        elif block_type in _KINDS:
            kind, field = _KINDS[block_type]
            self._writer.delta(index, kind, text_at(block, field))
            if text_at(block, "signature"):
                self._note_signature(index)

    def _read_delta(self, index: int, delta: Object) -> None:
        delta_type = text_at(delta, "type")
        if delta_type == "signature_delta":
            self._note_signature(index)
        elif delta_type in _KINDS:
            kind, field = _KINDS[delta_type]
            self._writer.delta(index, kind, text_at(delta, field))

    def _note_signature(self, index: int) -> None:
        if len(self._withheld) < PARTS_LIMIT:
            self._withheld.add(index)

    def _stop_block(self, index: int) -> None:
        """Close a block. Thinking with a signature but without a text was withheld."""
        if index in self._withheld:
            self._withheld.remove(index)
            if not self._writer.has_text(index, "reasoning", "output_text"):
                self._writer.redacted()
        self._writer.close(index)

    def _read_answer(self, answer: Object) -> None:
        self._start(answer)
        for index, block in enumerate(objects_at(answer, "content")):
            block_type = text_at(block, "type")
            if block_type in _KINDS and (text := text_at(block, _KINDS[block_type][1])):
                self._writer.whole(index, _KINDS[block_type][0], text)
            else:
                self._start_block(index, block)
                self._stop_block(index)
        self._stop, self._has_ended = answer, True
        self.finish()

    def _note_iterations(self, usage: Object) -> None:
        models: list[str] = []
        for each in objects_at(usage, "iterations"):
            model = text_at(each, "model")
            if text_at(each, "type") == "fallback_message":
                others = [name for name in models if name and name != model]
                self._fall_back({"from": others[-1] if others else "", **each})
                return
            models.append(model)

    def _fall_back(self, found: Object) -> None:
        """Report, once, that another model answered for one that refused."""
        if self._has_fallen_back:
            return
        self._has_fallen_back = True
        self._writer.begin()
        self._writer.write(
            "deltaloom.response.fallback",
            from_model=_model(found.get("from"))[: limits.NAME],
            to_model=(_model(found.get("to")) or text_at(found, "model"))[: limits.NAME],
            trigger=_model(found.get("trigger"))[: limits.REASON],
        )


def _stop_of(new: Object, old: Object) -> Object:
    """Return a delta with a reason to stop; one that repeats the reason may lack its details."""
    is_repeated = text_at(new, "stop_reason") == text_at(old, "stop_reason")
    return old if is_repeated and not object_at(new, "stop_details") else new


def _model(value: object) -> str:
    """Return the name in a field that is a string, or an object with a model or a type."""
    if isinstance(value, str):
        return value
    return text_at(value, "model") or text_at(value, "type")


_TYPES = frozenset(
    {
        *("message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)


def is_anthropic(value: Any) -> bool:
    """Return True if a message looks like an event or an answer of Anthropic Messages."""
    event_type = text_at(value, "type")
    return event_type in _TYPES or (
        event_type == "message" and isinstance(object_at(value).get("content"), list)
    )
