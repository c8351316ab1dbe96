"""Limit and redact the text that leaves with a message.

By default, mail addresses, phone numbers and card numbers are redacted; the file may add patterns. A
provider's explanation of a reason describes a user's request, so it is treated like a text.

Numbers in a name belong to it, so names are searched only for mail addresses and the file's patterns.
The same holds for the producer's reference, which may be a link with a mail address in it. Ids of a response
and of its items, including the provider's, are sent unchanged: they are needed to look up the response.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from service.alerts.deciding.patterns import MAX_TEXT, Pattern, PatternSet, Span
from service.two_generation_cache import TwoGenerationCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.schema import Detector, Redaction, TextShare

MAX_SENT = 64_000
"""Maximum number of characters of a text that are sent, even in full. Patterns search a little further
(`patterns.MAX_TEXT`), so that they see the whole of a match that begins within this limit."""

MAX_HITS = 1000
"""Maximum matches of one detector in one text, to bound the time. Text from the next match on is not sent."""

_CACHE_SIZE = 16
"""Entries in each of the cache's two generations, so up to twice as many redacted texts are cached."""

CUT = "…"
"""Mark of text that was cut off."""

PLACEHOLDER: Final = "[redacted]"
"""Placeholder for a match of one of the file's own patterns."""

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
"""Alert fields that hold a name."""

_MAIL = Pattern(r"[\pL\pN._%+'-]+@[\pL\pN][\pL\pN.-]*\.\pL{2,}")
_PHONE = Pattern(
    r"\+(?:[\pZ./()\p{Pd}]{0,2}\d){8,15}\b"  # +49 (0)30 1234567
    r"|\b00(?:[\pZ./()\p{Pd}]{0,2}\d){8,15}\b"  # 0049 30 1234567
    r"|\(?\b0\d{1,4}\)?[ ./-]{0,2}\d{2,8}(?:[ ./-]\d{2,4}){0,4}\b"  # 030 / 123 45 67
    r"|(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}\b"  # (212) 555-0123
    r"|\b[2-9]\d\d[2-9]\d{6}\b"  # 2125550123: area and exchange codes never begin with 0 or 1
)
_PHONE_DIGITS = range(9, 18)
"""Number of digits, with prefixes, of a phone number; a shorter match may be a date."""
_DIGIT_GROUPS = Pattern(r"\d(?:[\pZ.\p{Pd}]{0,2}\d){12,}")
"""Groups of digits with at least as many digits as a card number."""
_CARD_DIGITS = range(13, 20)  # ISO/IEC 7812
_CARD_BEGINS = frozenset("23456")  # banking and travel; not 1, with which millisecond timestamps begin


def _phones(text: str) -> Iterator[Span]:
    for span in _PHONE.spans(text):
        if sum(character.isdecimal() for character in text[span.start : span.end]) in _PHONE_DIGITS:
            yield span


def _cards(text: str) -> Iterator[Span]:
    """Yield the span of each run of whole digit groups that is a card number."""
    for span in _DIGIT_GROUPS.spans(text):
        groups = [group.span() for group in re.finditer("[0-9]+", text[span.start : span.end])]
        digits = "".join(text[span.start + begin : span.start + end] for begin, end in groups)
        ends = list(accumulate(end - begin for begin, end in groups))
        for first, last in _numbers(digits, ends):
            yield Span(span.start + groups[first][0], span.start + groups[last][1])


def _numbers(digits: str, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the indexes of the first and last group of each run that is a card number.

    Takes time linear in the number of digits: few runs begin at each group, and prefix sums
    reduce each check sum to one subtraction.

    Args:
        digits: digits of all groups, joined.
        ends: end of each group, as an offset in `digits`.
    """
    # Luhn doubles every second digit from the right, beginning with the last but one. If a number's end
    # (exclusive) is even, these are the digits at even offsets, else those at odd ones.
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
    """Yield the digits; at offsets of this parity, yield the digit sum of the doubled digit."""
    for place, digit in enumerate(digits):
        yield _TWICE[digit] if place % 2 == parity else int(digit)


_TWICE: Final = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}


class _Found(NamedTuple):
    span: Span
    placeholder: str


class _Search(NamedTuple):
    """A detector, and the placeholder for its matches."""

    pattern: Pattern
    """Pattern that matches somewhere in each text with a match of the detector."""
    spans: Callable[[str], Iterator[Span]]
    placeholder: str
    in_names: bool
    """True if names are searched too, not only prose."""


_DEFAULTS: Final[Mapping[Detector, _Search]] = {
    "mail": _Search(_MAIL, _MAIL.spans, "[mail]", in_names=True),
    "phone": _Search(_PHONE, _phones, "[phone]", in_names=False),
    "card": _Search(_DIGIT_GROUPS, _cards, "[card]", in_names=False),
}


class _SearchSet:
    """Detectors that search a text in turn, except those that certainly find nothing."""

    def __init__(self, searches: Iterable[_Search]) -> None:
        self._searches = tuple(searches)
        self._patterns = PatternSet(search.pattern for search in self._searches)

    def redact(self, text: str) -> str:
        """Return a text with placeholders for all matches, cut after `MAX_SENT` characters."""
        found = self._patterns.found(text)
        return _without(text, [self._searches[index] for index in found])


class Redactor:
    """A redactor of texts and names."""

    def __init__(self, searches: Sequence[_Search]) -> None:
        self._in_texts = _SearchSet(searches)
        self._in_names = _SearchSet(search for search in searches if search.in_names)
        self._redacted_texts: TwoGenerationCache[str, str] = TwoGenerationCache(_CACHE_SIZE)
        """Cache of redacted texts by original, since every destination gets the same one."""

    @classmethod
    def of(cls, redaction: Redaction) -> Redactor:
        """Return a redactor with the file's detectors and patterns."""
        own = (_Search(pattern, pattern.spans, PLACEHOLDER, in_names=True) for pattern in redaction.patterns)
        return cls((*(_DEFAULTS[name] for name in redaction.defaults), *own))

    def redact_text(self, text: str) -> str:
        """Return the redacted text, cut after `MAX_SENT` characters of the original."""
        searched = text[: MAX_TEXT + 1]  # one beyond the limit shows `_without` that the text goes on
        redacted = self._redacted_texts.get(searched)
        if redacted is None:
            redacted = self._redacted_texts[searched] = self._in_texts.redact(searched)
        return redacted

    def redact_name(self, name: str) -> str:
        """Return a redacted name of a tenant, a model or a person; only detectors for names apply."""
        return self._in_names.redact(name)

    def redact(self, alert: ModerationAlert, share: TextShare) -> ModerationAlert:
        """Return the alert as it may be sent by a route with this privacy setting."""
        update: dict[str, object] = {
            name: self.redact_name(value) for name in _NAMES if (value := getattr(alert, name)) is not None
        }
        if alert.reason is not None:
            update["reason"] = self.redact_text(alert.reason)
        if alert.rate is not None:
            update["rate"] = alert.rate.model_copy(update={"name": self.redact_name(alert.rate.name)})
        update["text"] = self._text(alert.text, share)
        if alert.provider_explanation is not None:
            update["provider_explanation"] = self._text(alert.provider_explanation, share) or None
        return alert.model_copy(update=update)

    def _text(self, text: str, share: TextShare) -> str:
        if share.privacy == "none":
            return ""
        redacted = self.redact_text(text)
        if share.privacy == "full" or len(redacted) <= share.characters:
            return redacted
        return redacted[: share.characters] + CUT


def sha256_of(text: str) -> str | None:
    """Return the SHA-256 of a whole text as UTF-8, in hexadecimal; None for an empty text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else None


def _without(text: str, searches: Sequence[_Search]) -> str:
    """Return a text with placeholders for all matches; overlapping matches share the first placeholder."""
    end = min(len(text), MAX_SENT)
    found: list[_Found] = []
    for search in searches:
        spans = list(islice(search.spans(text), MAX_HITS + 1))
        found += (_Found(span, search.placeholder) for span in spans[:MAX_HITS])
        if len(spans) > MAX_HITS:
            end = min(end, spans[MAX_HITS].start)
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
