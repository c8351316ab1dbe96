"""Whether an alert is what a `match` asks for, and if not, why not: in one sentence, for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.alerts.phases import phase_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deltaloom.messages import AlertSeverity, ModerationAlert
    from service.alerts.deciding.patterns import Pattern
    from service.alerts.deciding.schema import Match

OTHER: Final = "other"
"""The category of what no rule fits."""

ANY = "*"


@dataclass(frozen=True, slots=True)
class Judged:
    """An alert, and what the rules say of it."""

    alert: ModerationAlert
    severity: AlertSeverity
    category: str = OTHER
    rule: str | None = None


_ASKED: Final[Mapping[str, Callable[[Judged], str | None]]] = {
    "phase": lambda judged: phase_of(judged.alert) or judged.alert.type,
    "kind": lambda judged: judged.alert.kind,
    "severity": lambda judged: known(judged.severity),
    "category": lambda judged: judged.category,
    "tenant": lambda judged: judged.alert.tenant,
    "model": lambda judged: judged.alert.model,
    "provider": lambda judged: judged.alert.provider,
    "status": lambda judged: judged.alert.status,
    "reason": lambda judged: judged.alert.reason,
    "reason_class": lambda judged: judged.alert.reason_class,
}
"""What a match may ask for by name, in this order; the text, which costs more, comes last."""


def mismatch_of_route(match: Match, judged: Judged) -> str | None:
    """Return the first thing in which an alert is not what a route asks for; None if there is none.

    No file can name a phase that its version does not know. So for an alert of an unknown type the route's
    phase is ignored, and everything else counts, above all the severity: otherwise nobody would be told.
    """
    if phase_of(judged.alert) is None and match.phase is not None:
        match = match.model_copy(update={"phase": None})
    return mismatch(match, judged)


def mismatch(match: Match, judged: Judged) -> str | None:
    """Return the first thing in which an alert is not what is asked for; None if there is none."""
    for criterion, of in _ASKED.items():
        wanted: Sequence[str] | None = getattr(match, criterion)
        if wanted is None:
            continue
        value = of(judged)
        if not any(fits(name, value) for name in wanted):
            return f"{criterion} is {value or 'not known'}, not {' or '.join(wanted)}"
    return unread(match.text, judged.alert.text) if match.text else None


def unread(patterns: Sequence[Pattern], text: str) -> str | None:
    """That a text has nothing that one of the patterns matches; None: it has."""
    if first_found(patterns, text) is not None:
        return None
    which = patterns[0].source if len(patterns) == 1 else f"one of the {len(patterns)} patterns"
    return f"text has nothing that matches {which}"


def first_found(patterns: Sequence[Pattern], text: str) -> Pattern | None:
    """The first of some patterns that matches something in a text; None: none does."""
    return next((pattern for pattern in patterns if pattern.find(text)), None)


def fits(name: str, value: str | None) -> bool:
    """Whether a value is the one named, in which each `*` is any characters. Linear in the value."""
    if value is None:
        return False
    first, *rest = name.split(ANY)
    if not rest:
        return value == name
    *middle, last = rest
    end = len(value) - len(last)
    if len(first) > end or not value.startswith(first) or not value.endswith(last):
        return False
    at = len(first)
    for piece in middle:
        found = value.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
