"""Build the parts, the timeline and the state of one response as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from console.integrity_words import explained
from console.json_bodies import ms_of
from console.short_fields import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.live_responses import LiveResponse
    from console.text_policy import TextPolicy
    from deltaloom.messages import AssembledText, ModerationAlert
    from handlers.core.identity import PartKey
    from handlers.core.part_log import PartLog
    from service.cli.knowledge import Known

MAX_CHARACTERS: Final = 1_000_000
"""Maximum characters of a text that are sent; a browser shows no more."""

MAX_OF_ALL: Final = 4_000_000
"""Maximum characters of all texts of a response that are sent; the last parts are cut."""

CONTEXT: Final = (
    "model",
    "tenant",
    "provider",
    "upstream_provider",
    "dialect",
    "upstream_response_id",
    "safety_identifier",
    "reference",
    "traceparent",
)
"""Names of the context values that a page shows."""


def finished_part(
    text: AssembledText, policy: TextPolicy, contradicted: set[tuple[int | None, int | None, str | None]]
) -> dict[str, Any]:
    """Return a finished text as JSON values; `contradicted` has places of texts that a copy contradicts."""
    shown = policy.prose(text.text)  # before it is cut: no pattern finds half a number
    place = (text.output_index, text.content_index, text.kind)
    return {
        **_part(*place, shown and shown[:MAX_CHARACTERS], len(text.text)),
        "status": text.status,
        "reason": policy.reason(text.reason),
        "integrity": text.integrity,
        "integrity_source": text.integrity_source,
        "explained": explained(
            text.integrity, text.integrity_source, text.status, contradicted=place in contradicted
        ),
        "delta_count": text.delta_count,
        "duplicate_count": text.duplicate_count,
        "began": ms_of(text.started_at),
        "ended": ms_of(text.finished_at),
    }


def open_part(part: PartKey, log: PartLog, policy: TextPolicy) -> dict[str, Any]:
    """Return a part that is not finished as JSON values."""
    assembly, _ = log.assembled()
    place = (part.output_index, part.content_index, part.kind)
    shown = policy.prose(assembly.text)
    return {
        **_part(*place, shown and shown[-MAX_CHARACTERS:], len(assembly.text)),
        "explained": explained(None, None, None, contradicted=False),
        "delta_count": assembly.delta_count,
        "duplicate_count": assembly.duplicate_count,
        "began": log.began.entry.ms,
    }


def seen_parts(
    live: LiveResponse | None, written: set[tuple[int, int, str]], policy: TextPolicy
) -> list[dict[str, Any]]:
    """Return the parts that only this console has seen, such as answers that workers do not rebuild."""
    return [
        {
            **_part(*place, policy.end_of(part.text, MAX_CHARACTERS), part.text.length),
            "status": part.status,
            "explained": "Workers have not stored this text: only the console has seen it and keeps its end.",
        }
        for place, part in (live.parts.items() if live else ())
        if place not in written
    ]


def _part(output_index: int, content_index: int, kind: str, text: str | None, length: int) -> dict[str, Any]:
    return {
        "id": f"{output_index}:{content_index}:{kind}",
        "kind": kind,
        "output_index": output_index,
        "content_index": content_index,
        "text": text,
        "hidden": text is None,
        "cut": text is not None and length > MAX_CHARACTERS,
        "length": length,
        "status": None,
        "reason": None,
        "integrity": None,
        "integrity_source": None,
        "delta_count": None,
        "duplicate_count": None,
        "late_count": None,
        "began": None,
        "ended": None,
    }


def cut_parts(parts: Sequence[dict[str, Any]]) -> None:
    """Cut the texts of parts so that all of them together have at most `MAX_OF_ALL` characters."""
    room = MAX_OF_ALL
    for part in parts:
        text = part["text"] or ""
        if len(text) > room:
            part["text"], part["cut"] = text[:room], True
        room -= min(room, len(text))


def timeline_of(live: LiveResponse | None, parts: Sequence[dict[str, Any]]) -> tuple[list[list[int]], bool]:
    """Return when the texts grew, and whether later points are missing.

    A point is a time in ms since the epoch, the characters that came then, and the number of their part.
    """
    if live is None:
        return [], False
    numbers = {(part["output_index"], part["content_index"], part["kind"]): n for n, part in enumerate(parts)}
    points = [
        [at, characters, numbers[place]]
        for place, part in live.parts.items()
        if place in numbers
        for at, characters in part.timeline
    ]
    return sorted(points), any(part.timeline_cut for part in live.parts.values())


def context_of(alerts: Sequence[ModerationAlert]) -> dict[str, str]:
    """Return the context that the alerts of a response give; the earliest alert that has a value wins."""
    found: dict[str, str] = {}
    for alert in alerts:
        for name in CONTEXT:
            value = getattr(alert, name)
            if value is not None:
                found.setdefault(name, value)
    return found


def state_of(
    known: Known,
    alerts: Sequence[ModerationAlert],
    live: LiveResponse | None,
    parts: Sequence[dict[str, Any]],
    policy: TextPolicy,
) -> dict[str, Any]:
    """Return status, times and reason of a response: those of its end, else of its last text."""
    said: list[Any] = [*(alert for alert in alerts if alert.status is not None), *known.texts]
    last = said[-1] if said else None
    is_open = any(part["ended"] is None and part["status"] is None for part in parts) or not parts
    ended = [part["ended"] for part in parts if part["ended"] is not None]
    began = [part["began"] for part in parts if part["began"] is not None]
    types = {alert.type for alert in alerts}
    status = "open" if last is None or (is_open and not alerts) else last.status
    if live is not None and live.ended is not None and (live.ends or last is None):
        status = live.status
    return {
        "status": status,
        "reason": policy.reason(next((each.reason for each in reversed(said) if each.reason), None)),
        "reason_class": next((each.reason_class for each in reversed(said) if each.reason_class), None),
        "provider_category": policy.name(
            next((each.provider_category for each in said if each.provider_category), None)
        ),
        "provider_explanation": policy.beginning_of(
            next((each.provider_explanation for each in said if each.provider_explanation), None), LONGEST
        ),
        "began": min(began) if began else live.began if live else None,
        "ended": None if status == "open" else max(ended) if ended else live.ended if live else None,
        "refused": any(part["kind"] == "refusal" for part in parts) or "deltaloom.response.refused" in types,
        "blocked": bool(types & {"deltaloom.response.blocked", "deltaloom.response.filtered"}),
    }
