"""Read the events of a translator as a worker does: the deltas and copies of each part, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {
    "response.refusal": "refusal",
    "response.reasoning_text": "reasoning",
    "response.reasoning_summary_text": "reasoning_summary",
    "response.output_text": "output_text",
}

ENDS = frozenset(
    f"response.{end}" for end in ("completed", "incomplete", "failed", "cancelled", "done", "canceled")
)


class Reading(NamedTuple):
    """The content of a translated response."""

    texts: list[tuple[str, str]]
    """Kind and text of each part, in the order of their beginnings."""
    closed: list[tuple[str, str]]
    """The same of the parts with a `.done`."""
    redacted: int
    ends: list[dict[str, Any]]

    @property
    def status(self) -> str:
        """The status of the response."""
        (end,) = self.ends
        return str(end["response"]["status"])

    @property
    def details(self) -> dict[str, Any]:
        """The error or the reason of the response, with the reason under `reason`."""
        response = self.ends[0]["response"]
        details = dict(response.get("incomplete_details") or response.get("error") or {})
        return {**details, "reason": details.get("reason") or details.get("code")}


def reading_of(events: Iterable[dict[str, Any]]) -> Reading:
    """Return the content of events; fail if a `.done` has another text than its deltas."""
    texts: dict[tuple[str, int], str] = {}
    closed: dict[tuple[str, int], str] = {}
    redacted, ends = 0, []
    for event in events:
        base, _, verb = event["type"].rpartition(".")
        if base in _KINDS:
            part = (_KINDS[base], event["output_index"])
            if verb == "delta":
                assert part not in closed
                texts[part] = texts.get(part, "") + event["delta"]
            else:
                closed[part] = event["refusal" if base == "response.refusal" else "text"]
                assert texts.setdefault(part, closed[part]) == closed[part]
        redacted += event["type"] == "deltaloom.part.redacted"
        if event["type"] in ENDS:
            ends.append(event)
    return Reading(
        [(kind, text) for (kind, _), text in texts.items()],
        [(kind, text) for (kind, _), text in closed.items()],
        redacted,
        ends,
    )
