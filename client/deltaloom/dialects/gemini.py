"""Translate Gemini generateContent: server-sent events, an array of chunks, or one whole answer.

Nothing closes a part, and some servers repeat the `finishReason` in every chunk, so the parts are closed when
the stream ends. Only `thought: true` makes a part reasoning, never its signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom import limits
from deltaloom.dialects.ends import ending_of, graver, gravest, gravity
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.writing import KEY_CHARACTERS, NAMES_LIMIT, add_names

if TYPE_CHECKING:
    from deltaloom.dialects.writing import Kind, ProviderEnding, ResponseWriter

CANDIDATES_LIMIT = 128
"""Maximum candidates of a response."""

_MESSAGE_CHARACTERS = limits.EXPLANATION + KEY_CHARACTERS


class _Candidate:
    """An answer of several that a request asked for."""

    def __init__(self) -> None:
        self.finish = ""
        self.message = ""
        self.blocked: set[str] = set()
        """Categories whose safety rating blocked this candidate."""


class Gemini:
    """Reads the chunks of a Gemini stream, or one whole answer."""

    PROVIDER = "gcp.gemini"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._candidates: dict[int, _Candidate] = {}
        self._blocked_prompt: Object = {}
        self._error: ProviderEnding | None = None

    def read(self, message: WireMessage) -> None:
        """Read one chunk."""
        if message.value is DONE:
            return
        chunk = object_at(message.value)
        if inner := object_at(chunk, "response"):  # Code Assist wraps each chunk
            chunk = inner
        if error := object_at(chunk, "error"):
            self._error = error_ending(error, self._provider)
            return
        self._writer.begin(text_at(chunk, "modelVersion"), text_at(chunk, "responseId"))
        feedback = object_at(chunk, "promptFeedback")
        if text_at(feedback, "blockReason"):
            self._blocked_prompt = feedback
        for candidate in objects_at(chunk, "candidates"):
            self._read_candidate(candidate)

    def finish(self) -> None:
        """Write the end of the response."""
        for number, candidate in self._candidates.items():
            if candidate.finish:
                self._writer.close(number)
        self._writer.end(self._ending())

    def _read_candidate(self, data: Object) -> None:
        number = index_at(data, "index")
        if number not in self._candidates:
            if len(self._candidates) >= CANDIDATES_LIMIT:
                self._writer.leave_out(f"candidate beyond the limit of {CANDIDATES_LIMIT}")
                return
            self._candidates[number] = _Candidate()
        candidate = self._candidates[number]
        for part in objects_at(data, "content", "parts"):
            kind: Kind = "reasoning" if part.get("thought") is True else "output_text"
            self._writer.delta(number, kind, text_at(part, "text"))
        candidate.finish = graver(
            *(text_at(data, "finishReason")[: limits.REASON], candidate.finish),
            provider=self.PROVIDER,
            field="finishReason",
        )
        candidate.message = text_at(data, "finishMessage")[:_MESSAGE_CHARACTERS] or candidate.message
        add_names(candidate.blocked, _blocked(data))

    def _ending(self) -> ProviderEnding:
        if self._blocked_prompt:
            return ending_of(
                text_at(self._blocked_prompt, "blockReason"),
                provider=self.PROVIDER,
                field="promptFeedback.blockReason",
                category=", ".join(sorted(_blocked(self._blocked_prompt))),
                explanation=text_at(self._blocked_prompt, "blockReasonMessage"),
            )
        missing = self._error or self._writer.interruption
        endings = [
            ending_of(
                each.finish,
                provider=self.PROVIDER,
                field="finishReason",
                category=", ".join(sorted(each.blocked)),
                explanation=each.message,
            )
            if each.finish
            else missing
            for each in self._candidates.values()
        ]
        found = max(endings, key=gravity, default=missing)
        return gravest(self._error or found, found)


def _blocked(data: Object) -> set[str]:
    """Return the categories whose safety rating says that it blocked."""
    return {
        text_at(each, "category")[:NAMES_LIMIT]
        for each in objects_at(data, "safetyRatings")
        if each.get("blocked") is True and text_at(each, "category")
    }


def is_gemini(value: Any) -> bool:
    """Return True if a message looks like a chunk of Gemini."""
    chunk = object_at(value, "response") if "response" in object_at(value) else object_at(value)
    return (
        isinstance(chunk.get("candidates"), list)
        or "blockReason" in object_at(chunk, "promptFeedback")
        or ("usageMetadata" in chunk)
    )
