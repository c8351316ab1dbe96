"""Compare an alert with a `match` table, and describe the first mismatch in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from service.alerts.phases import phase_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deltaloom.messages import AlertSeverity, ModerationAlert
    from service.alerts.deciding.patterns import Pattern
    from service.alerts.deciding.schema import Match

OTHER: Final = "other"
"""Category of alerts that no rule matches."""

ANY = "*"


@dataclass(frozen=True, slots=True)
class JudgedAlert:
    """An alert with the severity and category that the rules give it."""

    alert: ModerationAlert
    severity: AlertSeverity
    category: str = OTHER
    rule: str | None = None


_CRITERIA: Final[Mapping[str, Callable[[JudgedAlert], str | None]]] = {
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
"""Criteria of a match in the order of comparison; the text, which costs more, comes last."""


class WantedFact(NamedTuple):
    """A criterion of a match, with the values or patterns of which one must match."""

    criterion: str
    value_of: Callable[[JudgedAlert], str | None]
    wanted: Sequence[str]


def mismatch_of_route(match: Match, judged: JudgedAlert) -> str | None:
    """Return the first mismatch between an alert and a route's match; None if it matches.

    A file can name only phases that this version knows. So for an alert of an unknown type, the route's
    phase is ignored and only the other criteria count. Otherwise no route would match, and nobody would be
    alerted.
    """
    if phase_of(judged.alert) is None and match.phase is not None:
        match = match.model_copy(update={"phase": None})
    return mismatch(match, judged)


def mismatch(match: Match, judged: JudgedAlert) -> str | None:
    """Return the first mismatch between an alert and a match; None if it matches."""
    why_not = mismatch_of_facts(facts_of(match), judged)
    if why_not is None and match.text:
        return text_mismatch(match.text, judged.alert.text)
    return why_not


def facts_of(match: Match) -> Iterator[WantedFact]:
    """Yield the criteria that a match gives, except the text, in the order of comparison."""
    for criterion, value_of in _CRITERIA.items():
        wanted = getattr(match, criterion)
        if wanted is not None:
            yield WantedFact(criterion, value_of, wanted)


def mismatch_of_facts(facts: Iterable[WantedFact], judged: JudgedAlert) -> str | None:
    """Return the first mismatch between an alert and the facts of a match; None if they match."""
    for criterion, value_of, wanted in facts:
        value = value_of(judged)
        if value not in wanted and not any(fits(pattern, value) for pattern in wanted):
            return f"{criterion} is {value or 'not known'}, not {' or '.join(wanted)}"
    return None


def text_mismatch(patterns: Sequence[Pattern], text: str) -> str | None:
    """Return a sentence that says that no pattern matches the text; None if one does."""
    if first_found(patterns, text) is not None:
        return None
    if len(patterns) == 1:
        return f"text does not match {patterns[0].source}"
    return f"text matches none of the {len(patterns)} patterns"


def first_found(patterns: Sequence[Pattern], text: str) -> Pattern | None:
    """Return the first pattern that matches somewhere in a text; None if none does."""
    return next((pattern for pattern in patterns if pattern.find(text)), None)


def fits(pattern: str, value: str | None) -> bool:
    """Return whether a value matches a pattern in which each `*` stands for any characters.

    None matches nothing. Takes time linear in the length of the value.
    """
    if value is None:
        return False
    first, *rest = pattern.split(ANY)
    if not rest:
        return value == pattern
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
