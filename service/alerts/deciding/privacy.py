"""What may leave: how much of a text, and what is struck out of it before.

Mail addresses, phone and card numbers are struck out of texts by default, and whatever the file adds. A
provider's explanation of a reason is about a user's request, so it is treated like a text.

A number in a name is part of that name, so only mail addresses and the file's patterns are struck out of
names, and of the producer's reference, which may be a link with a mail address in it. The ids of a response
and of its items, the provider's too, leave as they are: without them nobody could look the response up.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from service.alerts.deciding.patterns import MOST_TEXT, Pattern, Span
from service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.schema import Detector, Redaction, TextLeaving

MOST_LEAVING = 64_000
"""Characters of a text that leave at most, also where it may leave in full. Patterns look some way further
(`patterns.MOST_TEXT`), so that what begins within them is seen whole."""

MOST_HITS = 1000
"""Of one detector in one text: looking for more could take long. What stands behind them does not leave."""

_REMEMBERED = 16
"""Texts, or twice as many, that are remembered with what leaves of them."""

CUT = "…"
"""Stands where a text goes on."""

STRUCK: Final = "[redacted]"
"""Stands in place of what a pattern of the file found."""

_NAMES: Final = (
    "tenant",
    "model",
    "safety_identifier",
    "provider",
    "upstream_provider",
    "dialect",
    "provider_category",
    "reason_class",
    "reference",
)
"""Fields that hold a name."""

_MAIL = Pattern(r"[\pL\pN._%+'-]+@[\pL\pN][\pL\pN.-]*\.\pL{2,}")
_PHONE = Pattern(
    r"\+(?:[\pZ./()\p{Pd}]{0,2}\d){8,15}\b"  # +49 (0)30 1234567
    r"|\b00(?:[\pZ./()\p{Pd}]{0,2}\d){8,15}\b"  # 0049 30 1234567
    r"|\(?\b0\d{1,4}\)?[ ./-]{0,2}\d{2,8}(?:[ ./-]\d{2,4}){0,4}\b"  # 030 / 123 45 67
    r"|(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b"  # (212) 555-0123
    r"|\b[2-9]\d\d[2-9]\d{6}\b"  # 2125550123: neither an area nor an exchange begins with 0 or 1
)
_PHONE_DIGITS = range(9, 18)
"""Of a number with its prefixes: fewer are a date."""
_DIGIT_GROUPS = Pattern(r"\d(?:[\pZ.\p{Pd}]{0,2}\d){12,}")
"""Groups of digits that have enough of them for a card's number."""
_CARD_DIGITS = range(13, 20)  # ISO/IEC 7812
_CARD_BEGINS = frozenset("23456")  # banks, cards, travel; not 1, which milliseconds since 1970 begin with


def _phones(text: str) -> Iterator[Span]:
    for span in _PHONE.spans(text):
        if sum(character.isdecimal() for character in text[span.start : span.end]) in _PHONE_DIGITS:
            yield span


def _cards(text: str) -> Iterator[Span]:
    """Of groups of digits, every run of whole groups that is a card's number."""
    for span in _DIGIT_GROUPS.spans(text):
        groups = [group.span() for group in re.finditer("[0-9]+", text[span.start : span.end])]
        digits = "".join(text[span.start + begin : span.start + end] for begin, end in groups)
        ends = list(accumulate(end - begin for begin, end in groups))
        for first, last in _numbers(digits, ends):
            yield Span(span.start + groups[first][0], span.start + groups[last][1])


def _numbers(digits: str, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last group of each run that is a card's number.

    Linear in the digits: each group begins a few runs only, and a check digit is one subtraction.

    Args:
        digits: of all groups, joined.
        ends: of each group, in the digits.
    """
    # If a number ends at an even place, its check sum doubles the digits at even places; else the others.
    sums = [[0, *accumulate(_doubled(digits, parity))] for parity in range(2)]
    for first, begin in enumerate((0, *ends[:-1])):
        if digits[begin] not in _CARD_BEGINS:
            continue
        for last in range(bisect_left(ends, begin + _CARD_DIGITS.start, first), len(ends)):
            end = ends[last]
            if end - begin >= _CARD_DIGITS.stop:
                break
            checked = sums[end % 2]
            if (checked[end] - checked[begin]) % 10 == 0:
                yield first, last


def _doubled(digits: str, parity: int) -> Iterator[int]:
    """Yield the digits, of which each second one is doubled, and the sum of its digits taken."""
    for place, digit in enumerate(digits):
        yield _TWICE[digit] if place % 2 == parity else int(digit)


_TWICE: Final = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}


class _Found(NamedTuple):
    span: Span
    placeholder: str


class _Search(NamedTuple):
    """Something to look for."""

    spans: Callable[[str], Iterator[Span]]
    placeholder: str
    in_names: bool
    """Whether it is looked for in names too, not only in prose."""


_DEFAULTS: Final[Mapping[Detector, _Search]] = {
    "mail": _Search(_MAIL.spans, "[mail]", in_names=True),
    "phone": _Search(_phones, "[phone]", in_names=False),
    "card": _Search(_cards, "[card]", in_names=False),
}


@dataclass(frozen=True, slots=True)
class Redactor:
    """Strikes out what must not leave."""

    searches: tuple[_Search, ...]
    _latest: Recent[str, str] = field(default_factory=lambda: Recent(_REMEMBERED), compare=False, repr=False)
    """Texts with what was made of them: every destination gets the same one."""

    @classmethod
    def of(cls, redaction: Redaction) -> Redactor:
        """One that does what the file says."""
        own = (_Search(pattern.spans, STRUCK, in_names=True) for pattern in redaction.patterns)
        return cls((*(_DEFAULTS[name] for name in redaction.defaults), *own))

    def prose(self, text: str) -> str:
        """A text of `MOST_LEAVING` characters and one placeholder at most."""
        looked_at = text[: MOST_TEXT + 1]
        struck = self._latest.get(looked_at)
        if struck is None:
            struck = self._latest[looked_at] = _without(looked_at, self.searches)
        return struck

    def name(self, name: str) -> str:
        """The same for the name of a tenant, a model or a person."""
        return _without(name, [search for search in self.searches if search.in_names])

    def leaving(self, alert: ModerationAlert, how_much: TextLeaving) -> ModerationAlert:
        """An alert as it may leave by a route that lets so much of the text leave."""
        update: dict[str, object] = {
            name: self.name(value) for name in _NAMES if (value := getattr(alert, name)) is not None
        }
        if alert.reason is not None:
            update["reason"] = self.prose(alert.reason)
        if alert.rate is not None:
            update["rate"] = alert.rate.model_copy(update={"name": self.name(alert.rate.name)})
        update["text"] = self._text(alert.text, how_much)
        if alert.provider_explanation is not None:
            update["provider_explanation"] = self._text(alert.provider_explanation, how_much) or None
        return alert.model_copy(update=update)

    def _text(self, text: str, how_much: TextLeaving) -> str:
        if how_much.privacy == "none":
            return ""
        struck = self.prose(text)
        if how_much.privacy == "full" or len(struck) <= how_much.characters:
            return struck
        return struck[: how_much.characters] + CUT


def sha256_of(text: str) -> str | None:
    """Of a whole text as UTF-8, in hexadecimal; None if there is none."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else None


def _without(text: str, searches: Sequence[_Search]) -> str:
    """A text with a placeholder for all that is found in it; finds that overlap share the first's."""
    end = min(len(text), MOST_LEAVING)
    found: list[_Found] = []
    for search in searches:
        spans = list(islice(search.spans(text), MOST_HITS + 1))
        found += (_Found(span, search.placeholder) for span in spans[:MOST_HITS])
        if len(spans) > MOST_HITS:
            end = min(end, spans[MOST_HITS].start)
    kept: list[str] = []
    at = 0
    for span, placeholder in sorted(found, key=lambda each: (each.span.start, -each.span.end)):
        if span.start >= end:
            break
        if span.start >= at:
            kept += (text[at : span.start], placeholder)
        at = max(at, span.end)
    kept += (text[at:end], CUT if max(at, end) < len(text) else "")
    return "".join(kept)
