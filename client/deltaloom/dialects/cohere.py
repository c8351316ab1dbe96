"""Translate Cohere v2 chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from deltaloom.dialects.ends import ending_of
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at

if TYPE_CHECKING:
    from deltaloom.dialects.writing import Kind, ResponseWriter

_FIELDS: tuple[tuple[Kind, str], ...] = (("reasoning", "thinking"), ("output_text", "text"))

_EVENTS: Final = frozenset(
    {
        *("message-start", "content-start", "content-delta", "content-end", "message-end"),
        "tool-plan-delta",
    }
)
_PLAN: Final = "plan"
"""Key of the plan for tools: "a chain-of-thought style reflection", with no index and no end of its own."""


class Cohere:
    """Reads the events of a Cohere stream, or one whole answer."""

    PROVIDER = "cohere"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._reason = ""
        self._has_ended = False

    def read(self, message: WireMessage) -> None:
        """Read one event."""
        if message.value is DONE:
            return
        event = object_at(message.value)
        writer = self._writer
        match text_at(event, "type") or message.event:
            case "message-start":
                writer.begin("", text_at(event, "id"))
            case "content-start" | "content-delta":
                for kind, field in _FIELDS:
                    text = text_at(event, "delta", "message", "content", field)
                    writer.delta(index_at(event, "index"), kind, text)
            case "tool-plan-delta":
                writer.delta(_PLAN, "reasoning", text_at(event, "delta", "message", "tool_plan"))
            case "content-end":
                writer.close(index_at(event, "index"))
            case "message-end":
                self._has_ended = True
                self._reason = text_at(event, "delta", "finish_reason")
                if error := object_at(event, "delta").get("error"):
                    writer.end(error_ending({"code": self._reason, "message": str(error)}, self._provider))
                else:
                    writer.close(_PLAN)
                self.finish()
            case "":
                self._read_answer(event)
            case _:
                pass

    def finish(self) -> None:
        """Write the end of the response."""
        if self._reason or self._has_ended:
            self._writer.end(ending_of(self._reason, provider=self.PROVIDER, field="finish_reason"))
        else:
            self._writer.end(self._writer.interruption)

    def _read_answer(self, answer: Object) -> None:
        if not object_at(answer, "message"):
            if text := text_at(answer, "message"):
                self._writer.end(error_ending({"message": text}, self._provider))
            return
        self._writer.begin("", text_at(answer, "id"))
        self._writer.whole(_PLAN, "reasoning", text_at(answer, "message", "tool_plan"))
        for index, item in enumerate(objects_at(answer, "message", "content")):
            for kind, field in _FIELDS:
                self._writer.whole(index, kind, text_at(item, field))
        self._reason = text_at(answer, "finish_reason")
        self.finish()


def is_cohere(value: Any) -> bool:
    """Return True if a message looks like an event or an answer of Cohere."""
    message = object_at(value, "message")
    has_answer = bool(message.get("content") or message.get("tool_plan"))
    return text_at(value, "type") in _EVENTS or (has_answer and "finish_reason" in object_at(value))
