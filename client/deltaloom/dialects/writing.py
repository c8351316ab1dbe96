"""Write the events of one response, as the OpenAI Responses API defines them.

The reader of a dialect says what the provider sent. The writer numbers the events, gives each part its place,
joins the text of a part for its `.done`, and writes exactly one end.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from deltaloom import limits
from deltaloom.dialects.key_masking import without_keys
from deltaloom.reasons import REFUSED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from deltaloom.dialects.json_values import Object

Kind = Literal["refusal", "reasoning", "reasoning_summary", "output_text"]

Status = Literal["completed", "incomplete", "failed", "cancelled"]

BLOCKING = REFUSED | STOPPED
"""Classes of reasons that a person may have to look at."""

PARTS_LIMIT = 512
"""Maximum parts of a response. Further ones are left out and counted."""

DELTA_CHARACTERS = 64 * 1024
"""Maximum characters of a delta. A longer one becomes several."""

TEXT_BYTES = 1024 * 1024
"""Maximum bytes of a `.done`'s text. A longer text is closed with its SHA-256 and its size."""

KEPT_BYTES = 4 * TEXT_BYTES
"""Maximum bytes of all open texts that are kept. Beyond it, a text is closed with its SHA-256 too."""

NAMES_LIMIT = 64
"""Maximum names of categories that are kept of an answer, and maximum characters of each."""

KEY_CHARACTERS = 256
"""Characters that are read beyond a limit, so that a key at the end is masked as a whole."""

_DELTAS = {
    "refusal": "response.refusal",
    "reasoning": "response.reasoning_text",
    "reasoning_summary": "response.reasoning_summary_text",
    "output_text": "response.output_text",
}


class ProviderEnding(NamedTuple):
    """The end of a response, as its provider gives it."""

    status: Status
    reason: str = ""
    """The provider's own value, unchanged."""
    reason_class: str = ""
    """The class in `deltaloom.reasons`; empty: the worker's table decides."""
    category: str = ""
    explanation: str = ""
    message: str = ""
    """Message of an error."""


COMPLETED = ProviderEnding("completed")
CANCELLED = ProviderEnding("cancelled", reason="client_disconnected")
INTERRUPTED = ProviderEnding(
    "failed", reason="stream_interrupted", message="the stream ended before the response"
)


class _GrowingPart:
    """A text that grows."""

    def __init__(self, kind: Kind, output_index: int) -> None:
        self.kind = kind
        self.output_index = output_index
        self.is_closed = False
        self._fragments: list[str] = []
        self.is_empty = True
        """True if no delta has come."""
        self.kept_bytes = 0
        """Bytes of the fragments that are kept."""
        self._hash: Any = None
        """The checksum of a long text's beginning; None for a text whose fragments are all kept."""
        self._hashed_bytes = 0

    @property
    def is_hashed(self) -> bool:
        """True if only the checksum of the text's beginning is kept."""
        return self._hash is not None

    def place(self) -> Object:
        """Return the fields of an event that name the part."""
        index = "summary_index" if self.kind == "reasoning_summary" else "content_index"
        return {"output_index": self.output_index, index: 0}

    def add(self, delta: str) -> None:
        """Add a delta."""
        self._fragments.append(delta)
        self.is_empty = False
        self.kept_bytes += len(delta.encode(errors="replace"))

    def has_text(self, text: str) -> bool:
        """Return True if the whole text so far is kept, and equals this one."""
        is_as_long = self._hash is None and len(text.encode(errors="replace")) == self.kept_bytes
        return is_as_long and "".join(self._fragments) == text

    def forget_text(self) -> None:
        """Keep only the checksum of the text. A half of a surrogate pair waits for its other half."""
        text = "".join(self._fragments)
        rest = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(rest)]
        self._hash = self._hash or hashlib.sha256()
        self._update(text)
        self._fragments, self.kept_bytes = ([rest], len(rest)) if rest else ([], 0)

    def whole(self) -> Object:
        """Return the field of a `.done` with the text, or its checksum and size."""
        if self._hash is None:
            return {"refusal" if self.kind == "refusal" else "text": "".join(self._fragments)}
        self._update("".join(self._fragments))
        return {"text_sha256": self._hash.hexdigest(), "text_bytes": self._hashed_bytes}

    def _update(self, text: str) -> None:
        data = _utf8(text)
        self._hash.update(data)
        self._hashed_bytes += len(data)


def add_names(names: set[str], new: set[str]) -> None:
    """Add names to a set, up to the limit."""
    names |= set(sorted(new)[: max(0, NAMES_LIMIT - len(names))])


def shown(text: str, limit: int) -> str:
    """Return the beginning of a provider's message, without keys. A key at its end is masked as a whole."""
    return without_keys(text[: limit + KEY_CHARACTERS])[:limit]


def _utf8(text: str) -> bytes:
    """Return a text in UTF-8; pairs of surrogates are joined, and a lone half becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


class ResponseWriter:
    """Writes the events of one response.

    Args:
        response_id: id for the response in the events.
    """

    def __init__(self, response_id: str) -> None:
        self.response_id = response_id
        self.is_over = False
        """True after the end was written."""
        self.model = ""
        self.upstream_response_id = ""
        self.numbers_events = True
        """False for a stream that was joined in the middle: its events have no numbers."""
        self.interruption = INTERRUPTED
        """The end of a response that its provider has not ended."""
        self.is_cut = False
        """True if the transfer of the body broke, or the client left."""
        self.block: ProviderEnding | None = None
        """The end if a guardrail around the model blocked the answer; it replaces one that does not block."""
        self.is_lossy = False
        """True if a message could not be read: it may have had a fragment of any text."""
        self.left_out: dict[str, int] = {}
        """The number of things that were left out, by a short phrase; at most 200 phrases."""
        self._events: list[Object] = []
        self._number = 0
        self._next_index = 0
        self._parts: dict[Hashable, _GrowingPart] = {}
        self._has_begun = False
        self._kept = 0
        """Bytes of the open texts that are kept."""

    def drain(self) -> list[Object]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def leave_out(self, what: str) -> None:
        """Count something that was left out."""
        if what in self.left_out or len(self.left_out) < _PHRASES:
            self.left_out[what] = self.left_out.get(what, 0) + 1

    def lose(self, what: str) -> None:
        """Count a message that could not be read. From here on, no text is closed as whole."""
        self.is_lossy = True
        self.leave_out(what)

    def begin(self, model: str = "", upstream_response_id: str = "") -> None:
        """Write the beginning of the response, once. Keep the first model and id that are not empty."""
        if model and not self.model:
            self.model = _utf8(model[: limits.NAME]).decode()
        if upstream_response_id and not self.upstream_response_id:
            self.upstream_response_id = _utf8(upstream_response_id[: limits.ID]).decode()
        if not self._has_begun and not self.is_over:
            self._has_begun = True
            self.write("response.created", response=self._snapshot("in_progress"))

    def delta(self, key: Hashable, kind: Kind, text: str) -> None:
        """Write a fragment of the part with this key and kind. An empty fragment is left out."""
        if not text:
            return
        part = self._part((key, kind), kind)
        if part is None:
            return
        for start in range(0, len(text), DELTA_CHARACTERS):
            fragment = text[start : start + DELTA_CHARACTERS]
            self._keep(part, fragment)
            self.write(f"{_DELTAS[kind]}.delta", **part.place(), delta=fragment)

    def _keep(self, part: _GrowingPart, fragment: str) -> None:
        """Keep a fragment for the `.done`; beyond the limit of a text or of all texts, keep its checksum."""
        self._kept -= part.kept_bytes
        part.add(fragment)
        too_many = part.kept_bytes > TEXT_BYTES or self._kept + part.kept_bytes > KEPT_BYTES
        if too_many or part.is_hashed:
            part.forget_text()
        self._kept += part.kept_bytes

    def whole(self, key: Hashable, kind: Kind, text: str) -> None:
        """Write a part whose text the provider gives at once, and close it."""
        if len(text) > DELTA_CHARACTERS:
            self.delta(key, kind, text)
            self.close(key)
            return
        if not text:
            return
        part = self._part((key, kind), kind)
        if part is not None:
            part.is_closed = True
            field = "refusal" if kind == "refusal" else "text"
            self.write(f"{_DELTAS[kind]}.done", **part.place(), **{field: text})

    def close(self, key: Hashable) -> None:
        """Close the parts of this key, in their order. A later delta with the key begins a new part."""
        for name in [name for name in self._parts if isinstance(name, tuple) and name[0] == key]:
            part = self._parts.pop(name)
            self._kept -= part.kept_bytes
            if not (part.is_closed or part.is_empty or self.is_lossy):
                self.write(
                    f"{_DELTAS[part.kind]}.done", **part.place(), **part.whole(), integrity_source="producer"
                )

    def has_text(self, key: Hashable, *kinds: Kind) -> bool:
        """Return True if the key has an open part of one of these kinds."""
        return any((key, kind) in self._parts for kind in kinds)

    def has_whole_text(self, key: Hashable, text: str) -> bool:
        """Return True if an open part of reasoning of the key has this text so far."""
        parts = (self._parts.get((key, kind)) for kind in ("reasoning", "reasoning_summary"))
        return any(part is not None and part.has_text(text) for part in parts)

    def redacted(self, kind: Kind = "reasoning") -> None:
        """Write a part whose text the provider withholds."""
        index = self._new_index()
        if index is not None:
            self.write("deltaloom.part.redacted", output_index=index, content_index=0, kind=kind)

    def write(self, event_type: str, /, **fields: Any) -> None:
        """Write an event, with the next number."""
        if self.is_over:
            self.leave_out("event after the end")
            return
        event: Object = {"type": event_type}
        if self.numbers_events:
            event["sequence_number"] = self._number
            self._number += 1
        self._events.append(event | fields)

    def end(self, ending: ProviderEnding) -> None:
        """Write the end, once. Parts that are still open get no `.done`; keys in messages are masked."""
        if self.is_over:
            return
        if self.block is not None and ending.reason_class not in BLOCKING:
            ending = self.block
        self.begin()
        details = {
            "reason_class": ending.reason_class,
            "provider_category": shown(ending.category, limits.REASON),
            "provider_explanation": shown(ending.explanation, limits.EXPLANATION),
        }
        details = {name: value for name, value in details.items() if value}
        response = self._snapshot(ending.status)
        if ending.status == "failed":
            error = {
                "code": shown(ending.reason, limits.REASON),
                "message": shown(ending.message, limits.EXPLANATION),
            }
            response["error"] = {name: value for name, value in error.items() if value} | details
        elif ending.status != "completed":
            response["incomplete_details"] = {"reason": shown(ending.reason, limits.REASON)} | details
        self.write(f"response.{ending.status}", response=response)
        self.is_over = True
        self._parts.clear()

    def _snapshot(self, status: str) -> Object:
        response: Object = {"id": self.response_id, "object": "response", "status": status}
        return response | ({"model": self.model} if self.model else {})

    def _part(self, name: Hashable, kind: Kind) -> _GrowingPart | None:
        part = self._parts.get(name)
        if part is None:
            self.begin()
            index = self._new_index()
            if index is None:
                return None
            part = self._parts[name] = _GrowingPart(kind, index)
        return part

    def _new_index(self) -> int | None:
        if self._next_index >= PARTS_LIMIT:
            self.leave_out(f"part beyond the limit of {PARTS_LIMIT}")
            return None
        self._next_index += 1
        return self._next_index - 1


_PHRASES = 200
