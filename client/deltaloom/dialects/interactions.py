"""Translate Gemini Interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom.dialects.ends import ending_of
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.writing import COMPLETED, PARTS_LIMIT, ProviderEnding

if TYPE_CHECKING:
    from deltaloom.dialects.writing import ResponseWriter

_OVER = frozenset(
    {
        *("completed", "failed", "incomplete", "cancelled", "requires_action"),
        *("budget_exceeded", "requires_continuation"),
    }
)
"""Statuses of an interaction that is over, whatever the event."""

_STATUS_OF_END = {
    "interaction.completed": "completed",
    "interaction.complete": "completed",  # of an older beta
    "interaction.cancelled": "cancelled",
    "interaction.canceled": "cancelled",
}
"""Status of an interaction by the event that ends it, if the event gives none."""


class Interactions:
    """Reads the events of an Interactions stream, or one whole answer."""

    PROVIDER = "gcp.gemini"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._status = ""
        self._is_over = False
        """True if the event says that the interaction is over, whatever its status."""
        self._error: Object = {}
        self._withheld: set[int] = set()
        """Steps of thought that have a signature."""

    def read(self, message: WireMessage) -> None:
        """Read one event."""
        if message.value is DONE:
            self.finish()
            return
        event = object_at(message.value)
        interaction = object_at(event, "interaction")
        index = index_at(event, "index")
        event_type = text_at(event, "event_type") or message.event
        match event_type:
            case "interaction.created" | "interaction.start":
                self._writer.begin(text_at(interaction, "model"), text_at(interaction, "id"))
            case "step.start" | "content.start":
                self._end_step(index)
                self._read_content(index, object_at(event, "step") or object_at(event, "content"))
            case "step.delta" | "content.delta":
                self._read_content(index, object_at(event, "delta"))
            case "step.stop" | "content.stop":
                self._end_step(index)
            case "error":
                self._writer.end(error_ending(object_at(event, "error"), self._provider))
            case _ if text_at(event, "object") == "interaction":
                self._read_answer(event)
            case _ if event_type.startswith("interaction."):
                own = _STATUS_OF_END.get(event_type, "")
                self._is_over = bool(own)
                status = text_at(interaction, "status") or text_at(event, "status")
                self._note_status(status or own, interaction or event)
            case _:
                self._writer.leave_out(f"event {event_type[:80]!r}")

    def finish(self) -> None:
        """Write the end of the response."""
        self._writer.end(self._ending())

    def _note_status(self, status: str, source: Object) -> None:
        if status in _OVER or (status and self._is_over):
            self._status = status
            self._error = object_at(source, "error")

    def _read_content(self, index: int, content: Object) -> None:
        """Read the words of a step's beginning or of a fragment."""
        match text_at(content, "type"):
            case "thought_summary":
                text = text_at(content, "content", "text") or text_at(content, "text")
                self._writer.delta(index, "reasoning_summary", text)
            case "thought":
                for each in objects_at(content, "summary"):
                    self._writer.delta(index, "reasoning_summary", text_at(each, "text"))
                self._writer.delta(index, "reasoning", text_at(content, "thought"))
                if text_at(content, "signature"):
                    self._note_signature(index)
            case "thought_signature":
                self._note_signature(index)
            case "text":
                self._writer.delta(index, "output_text", text_at(content, "text"))
            case "model_output":
                for each in objects_at(content, "content"):
                    self._writer.delta(index, "output_text", text_at(each, "text"))

    def _note_signature(self, index: int) -> None:
        if len(self._withheld) < PARTS_LIMIT:
            self._withheld.add(index)

    def _end_step(self, index: int) -> None:
        """Close a step. A thought with a signature but without a text was withheld."""
        if index in self._withheld:
            self._withheld.remove(index)
            if not self._writer.has_text(index, "reasoning", "reasoning_summary"):
                self._writer.redacted()
        self._writer.close(index)

    def _read_answer(self, answer: Object) -> None:
        self._writer.begin(text_at(answer, "model"), text_at(answer, "id"))
        for field in ("outputs", "steps"):
            for index, step in enumerate(objects_at(answer, field)):
                self._read_content(index, step)
                self._end_step(index)
        self._note_status(text_at(answer, "status"), answer)
        self.finish()

    def _ending(self) -> ProviderEnding:
        match self._status:
            case "":
                return self._writer.interruption
            case "completed" | "requires_action":
                return COMPLETED
            case "cancelled":
                return ProviderEnding("cancelled", reason="cancelled")
            case "failed":
                return error_ending(self._error, self._provider)
            case other:
                return ending_of(other, provider=self.PROVIDER, field="interaction.status")


def is_interactions(value: Any) -> bool:
    """Return True if a message looks like an event or an answer of Interactions."""
    event_type = text_at(value, "event_type")
    return (
        event_type.startswith(("interaction.", "step.", "content."))
        or text_at(value, "object") == "interaction"
    )
