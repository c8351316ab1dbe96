"""Translate the Responses API and Open Responses: the events pass, without secrets and without other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from deltaloom import limits
from deltaloom.dialects.azure_filters import Block, block_of
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.writing import PARTS_LIMIT, shown

if TYPE_CHECKING:
    from deltaloom.dialects.writing import ResponseWriter

_TEXTS: Final = ("item_id", "delta", "refusal", "text", "text_sha256", "integrity_source", "kind")
_INDEXES: Final = ("output_index", "content_index", "summary_index")
_COUNTS: Final = ("text_bytes", "dropped")
_RESPONSE_FIELDS: Final[tuple[str, ...]] = (
    "status",
    "model",
    "safety_identifier",
    "error",
    "incomplete_details",
)
_DELTAS: Final = frozenset(
    f"response.{kind}.delta"
    for kind in ("refusal", "reasoning_text", "reasoning_summary_text", "output_text")
)
_LARGEST: Final = 2**63
"""Bound of the numbers that every reader of JSON can read."""

_ENDS: Final = frozenset(
    f"response.{end}" for end in ("completed", "done", "incomplete", "failed", "cancelled", "canceled")
)
_BEGINNINGS: Final = frozenset({"response.created", "response.queued", "response.in_progress"})
_PREFIXES: Final = (
    *("response.refusal.", "response.reasoning_text.", "response.reasoning_summary_text."),
    *("response.output_text.d", "response.content_part.", "response.reasoning_part."),
    *("response.reasoning_summary_part.", "deltaloom."),
)


class Responses:
    """Reads the events of a Responses stream, or one whole answer."""

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._withheld: set[int] = set()
        """Places of the items whose reasoning was reported as withheld."""

    def read(self, message: WireMessage) -> None:
        """Read one event."""
        if message.value is DONE:
            return
        event = object_at(message.value)
        event_type = text_at(event, "type") or message.event
        writer = self._writer
        if event_type in _BEGINNINGS:
            snapshot = object_at(event, "response")
            writer.begin(text_at(snapshot, "model"), text_at(snapshot, "id"))
        elif event_type in _ENDS:
            self._end(event_type, event, object_at(event, "response"))
        elif event_type in {"error", "response.error"}:
            writer.end(error_ending(object_at(event, "error") or event, self._provider))
        elif event_type in {"response.output_item.added", "response.output_item.done"}:
            item, index = object_at(event, "item"), index_at(event, "output_index")
            if event_type.endswith("done"):
                self._note_withheld(item, index)
            writer.write(event_type, **self._number(event), output_index=index, item=_item(item))
        elif event_type.startswith(_PREFIXES):
            self._pass_on(event_type, event)
        elif text_at(event, "object") == "response":
            self._end(f"response.{text_at(event, 'status') or 'completed'}", {}, event)
        elif error := (
            object_at(event, "error") or ({"message": event["error"]} if event.get("error") else {})
        ):
            writer.end(error_ending(error, self._provider))
        else:
            writer.leave_out(f"event {event_type[:80]!r}")

    def finish(self) -> None:
        """Write the end of the response."""
        self._writer.end(self._writer.interruption)

    def _pass_on(self, event_type: str, event: Object) -> None:
        """Write an event of a part. A delta without a text is lost: its part has no joined text."""
        if event_type in _DELTAS and not isinstance(event.get("delta"), str):
            self._writer.lose("delta without a text")
            return
        fields: Object = {name: event[name] for name in _TEXTS if isinstance(event.get(name), str)}
        fields |= {name: index_at(event, name) for name in _INDEXES if event.get(name) is not None}
        fields |= {name: index_at(event, name) for name in _COUNTS if event.get(name) is not None}
        if part := object_at(event, "part"):
            fields["part"] = _part(part)
        self._writer.write(event_type, **self._number(event), **fields)

    def _end(self, event_type: str, event: Object, snapshot: Object) -> None:
        writer = self._writer
        if writer.is_over:
            return
        writer.begin(text_at(snapshot, "model"), text_at(snapshot, "id"))
        output = list(objects_at(snapshot, "output"))[:PARTS_LIMIT]
        for index, item in enumerate(output):
            self._note_withheld(item, index)
        copying = _Copying()
        response: Object = {
            name: copying.copy(snapshot[name]) for name in _RESPONSE_FIELDS if name in snapshot
        }
        if output:
            response["output"] = [_item(item) for item in output]
        error = {"error": copying.copy(event["error"])} if event.get("error") else {}
        if event_type not in _ENDS:  # the status of a whole answer
            event_type = "response.done"
        if (block := block_of(snapshot)).is_blocked:
            event_type = _note_block(response, block) or event_type
        writer.write(
            event_type, **self._number(event), response={"id": writer.response_id, **response}, **error
        )
        writer.is_over = True

    def _number(self, event: Object) -> Object:
        """Return the provider's number of an event, if the stream was joined in the middle."""
        number = event.get("sequence_number")
        is_number = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST
        return {"sequence_number": number} if is_number and not self._writer.numbers_events else {}

    def _note_withheld(self, item: Object, index: int) -> None:
        """Report a reasoning item that is encrypted and has no reasoning text, once."""
        is_withheld = item.get("encrypted_content") and not any(map(_text, objects_at(item, "content")))
        if (
            text_at(item, "type") == "reasoning"
            and is_withheld
            and index not in self._withheld
            and len(self._withheld) < PARTS_LIMIT
        ):
            self._withheld.add(index)
            self._writer.write(
                "deltaloom.part.redacted", output_index=index, content_index=0, kind="reasoning"
            )


def _note_block(response: Object, block: Block) -> str:
    """Add the finding of Azure's filters to a response. Return the end of one that did not fail otherwise."""
    names = shown(", ".join(sorted(block.categories)), limits.REASON)
    category = {"provider_category": names} if names else {}
    if error := object_at(response, "error"):
        response["error"] = error | category
        return ""
    details = object_at(response, "incomplete_details")
    response |= {
        "status": "incomplete",
        "incomplete_details": {"reason": "content_filter"} | details | category,
    }
    return "response.incomplete"


def _text(part: Object) -> str:
    return text_at(part, "text")


def _part(part: Object) -> Object:
    return {name: part[name] for name in ("type", "refusal", "text") if isinstance(part.get(name), str)}


def _item(item: Object) -> Object:
    """Return an item with only its texts."""
    kept: Object = {
        name: item[name] for name in ("type", "id", "role", "status") if isinstance(item.get(name), str)
    }
    if text_at(item, "type") in {"message", "reasoning"}:
        for field in ("content", "summary"):
            value = item.get(field)
            if isinstance(value, list):
                kept[field] = [_part(each) if isinstance(each, dict) else {} for each in value]
            elif isinstance(value, str):
                kept[field] = value
    return kept


_SECRETS: Final = frozenset(
    {"encrypted_content", "signature", "fallback_credit_token", "data", "obfuscation"}
)


class _Copying:
    """Copies values of a snapshot without fields that may hold secrets or opaque data, within limits.

    A value is copied at most six deep, with at most 64 members of each object and list, and all values of one
    snapshot have at most 64 Ki characters of text.
    """

    def __init__(self) -> None:
        self._characters = 64 * 1024

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of a value."""
        if isinstance(value, dict):
            members = list(value.items())[:_MEMBERS] if depth <= _DEPTH else []
            return {
                name[:_NAME_CHARACTERS]: self.copy(each, depth + 1)
                for name, each in members
                if name not in _SECRETS
            }
        if isinstance(value, list):
            return [self.copy(each, depth + 1) for each in value[:_MEMBERS]] if depth <= _DEPTH else []
        if isinstance(value, float | int) and not -_LARGEST < value < _LARGEST:  # NaN too
            return None
        if isinstance(value, str):
            value = value[: max(0, self._characters)]
            self._characters -= min(len(value), _TEXT_CHARACTERS)
            return shown(value, _TEXT_CHARACTERS)
        return value


_MEMBERS: Final = 64
_DEPTH: Final = 6
"""Maximum depth of an error; documented ones are less deep."""
_NAME_CHARACTERS: Final = 256
_TEXT_CHARACTERS: Final = 8192


def is_responses(value: Any) -> bool:
    """Return True if a message looks like an event or an answer of the Responses API."""
    return text_at(value, "type").startswith("response.") or text_at(value, "object") == "response"
