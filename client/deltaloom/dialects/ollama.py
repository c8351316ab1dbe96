"""Translate Ollama's own API: `/api/chat` and `/api/generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom.dialects.ends import ending_of
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import object_at, text_at
from deltaloom.dialects.thinking_tags import ThinkingTags

if TYPE_CHECKING:
    from deltaloom.dialects.writing import ResponseWriter

_ANSWER = "answer"


class Ollama:
    """Reads the lines of an Ollama stream, or one whole answer."""

    PROVIDER = "ollama"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._tags = ThinkingTags()
        self._reason: str | None = None

    def read(self, message: WireMessage) -> None:
        """Read one line."""
        if message.value is DONE:
            return
        line = object_at(message.value)
        writer = self._writer
        if error := line.get("error"):
            self._write_rest()
            writer.end(
                error_ending(
                    {"message": error} if isinstance(error, str) else object_at(error), self._provider
                )
            )
            return
        writer.begin(text_at(line, "model"))
        words = object_at(line, "message") or line
        if thinking := text_at(words, "thinking"):
            self._tags.stop()
            writer.delta(_ANSWER, "reasoning", thinking)
        for kind, text in self._tags.divide(text_at(words, "content") or text_at(words, "response")):
            writer.delta(_ANSWER, kind, text)
        if line.get("done") is True:
            self._reason = text_at(line, "done_reason") or "stop"
            self.finish()

    def finish(self) -> None:
        """Write the end of the response."""
        self._write_rest()
        if self._reason is None:
            self._writer.end(self._writer.interruption)
            return
        self._writer.close(_ANSWER)
        self._writer.end(ending_of(self._reason, provider=self.PROVIDER, field="done_reason"))

    def _write_rest(self) -> None:
        """Write the characters that were held because they might begin a tag."""
        for kind, text in self._tags.rest():
            self._writer.delta(_ANSWER, kind, text)


def is_ollama(value: Any) -> bool:
    """Return True if a message looks like a line of Ollama."""
    line = object_at(value)
    return isinstance(line.get("done"), bool) and "model" in line
