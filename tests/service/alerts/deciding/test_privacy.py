"""Test the redaction of texts before they leave."""

from __future__ import annotations

import hashlib
import math
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.deciding.patterns import MAX_TEXT, Pattern
from service.alerts.deciding.privacy import CUT, MAX_HITS, MAX_SENT, Redactor, _Search, sha256_of
from service.alerts.deciding.schema import Redaction, TextShare
from tests.service.alerts.made import alert, config, spike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.alerts.deciding.patterns import Span

DEFAULT = Redactor.of(Redaction())
FULL = TextShare("full")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to joe@example.com.", "write to [mail]."),
        ("<Jo.E+tag@mail.example.co.uk>", "<[mail]>"),
        ("bücher@bücher.example", "[mail]"),
        ("not@mail, @joe, 3@4", "not@mail, @joe, 3@4"),
        ("call +49 (0)30 123-45 67!", "call [phone]!"),
        ("call 0049 30 1234567", "call [phone]"),
        ("call (212) 555-0123 or 212.555.0123 or 2125550123", "call [phone] or [phone] or [phone]"),
        ("tel:+12125550123", "tel:[phone]"),
        ("030/1234567, 0171 234 56 78", "[phone], [phone]"),
        ("01 23 45 67 89", "[phone]"),
        ("on 01-02-2024, 2024-01-02, 12:30, v1.20.3", "on 01-02-2024, 2024-01-02, 12:30, v1.20.3"),
        ("1763764863123-0 of 1763764863", "1763764863123-0 of 1763764863"),
        ("01234 12345678 12 34, 01234 12345678 12 345", "[phone], 01234 12345678 12 345"),
        ("call 988, 110 or 112", "call 988, 110 or 112"),
        ("card 4111 1111 1111 1111.", "card [card]."),
        ("4111-1111-1111-1111", "[card]"),
        ("4111.1111.1111.1111 or 4111\u00a01111\u00a01111\u00a01111", "[card] or [card]"),
        ("+44\u00a020\u00a07946\u00a00958 or +44 20 7946\u20110958", "[phone] or [phone]"),
        (
            "192.168.100.200, 3.14159265358979, 4, 1, 11, 11, 11",
            "192.168.100.200, 3.14159265358979, 4, 1, 11, 11, 11",
        ),
        ("4111111111111111", "[card]"),
        ("378282246310005 (Amex)", "[card] (Amex)"),
        ("4111 1111 1111 1111 123", "[card] 123"),
        ("12 4111 1111 1111 1111", "12 [card]"),
        ("4111111111111112", "4111111111111112"),
        (
            "1234567890123, and 16 digits: 4111 1111 1111 1112",
            "1234567890123, and 16 digits: 4111 1111 1111 1112",
        ),
        ("card4111111111111111", "card[card]"),
        ("4 4111 1111 1111 1111", "4 [card]"),
    ],
)
def test_defaults(text: str, redacted: str) -> None:
    """Replace mail addresses, phone numbers and card numbers, and leave other numbers unchanged."""
    assert DEFAULT.redact_text(text) == redacted


def luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


CARDS = Redactor.of(config('[redaction]\ndefaults = ["card"]').redaction)


@given(st.lists(st.text("0123456789", min_size=1, max_size=6), min_size=1, max_size=30))
def test_every_run_of_groups_that_is_a_card_number_is_redacted(groups: list[str]) -> None:
    """Replace any run of digit groups that is a card number, with any grouping and any neighbours."""
    redacted = [False] * len(groups)
    for first in range(len(groups)):
        for last in range(first, len(groups)):
            digits = "".join(groups[first : last + 1])
            if 13 <= len(digits) <= 19 and digits[0] in "23456" and luhn(digits):
                redacted[first : last + 1] = [True] * (last + 1 - first)
    left = [group for group, is_redacted in zip(groups, redacted, strict=True) if not is_redacted]
    assert re.findall("[0-9]+", CARDS.redact_text(" ".join(groups))) == left


def cost(text: str) -> float:
    """Return the minimum CPU time of three searches of a new text, in seconds, with the default patterns."""
    best = math.inf
    for _ in range(3):
        began = time.process_time()
        Redactor.of(Redaction()).redact_text(text)
        best = min(best, time.process_time() - began)
    return best


PROSE = "word " * (MAX_TEXT // len("word "))
"""Longest text without numbers and addresses. Its cost is the unit, so that any machine can run the test."""

NUMBERS = ["3 ", "4 ", "41 ", "4111 1111 1111 1111 ", "+4 ", "(0", "030/", "0049 30 ", "€3 ", "1"]


@pytest.mark.parametrize("unit", [*NUMBERS, "a@", "a.", "a@b.c"])
def test_search_is_linear_and_quick(unit: str) -> None:
    """Search in linear time. A text of numbers took 17 seconds before and would cost the relay its leases."""
    text = unit * (MAX_TEXT // len(unit))
    whole = cost(text)
    assert whole < 10 * cost(text[: len(text) // 4]) + 0.02
    assert whole < 1500 * cost(PROSE)


def test_a_text_is_searched_once_for_all_destinations() -> None:
    """Search a text once for all destinations, and up to the maximum length."""
    searched = []

    def spans(text: str) -> Iterator[Span]:
        searched.append(text)
        yield from ()

    redactor = Redactor((_Search(Pattern("text|x"), spans, "", in_names=False),))
    texts = [f"text {number}" for number in range(3)]
    for share in (FULL, TextShare("excerpt", 3), FULL):
        for text in texts:
            redactor.redact(alert(text), share)
    assert searched == texts
    redactor.redact_text("x" * 2 * MAX_TEXT)
    assert len(searched[-1]) == MAX_TEXT + 1


DIGITS = st.integers(10**11, 10**17 - 1).map(lambda number: f"4{number}")


BESIDE = st.text("ab :,-4\n", max_size=12)


@given(BESIDE.filter(lambda text: text[-1:] != "4"), DIGITS, st.sampled_from(["", " ", "-"]), BESIDE)
def test_every_card_number_is_redacted(before: str, digits: str, separator: str, after: str) -> None:
    """Replace a card number with any grouping and any neighbours."""
    check = next(digit for digit in "0123456789" if luhn(digits + digit))
    groups = separator.join(re.findall(".{1,4}", digits + check))
    redacted = DEFAULT.redact_text(f"{before}{groups}{after if after[:1] != '4' else ''}")
    assert not any(
        group in redacted for group in re.findall(r"\d{4,}", groups) if group not in before + after
    )


@given(
    st.from_regex(
        r"[a-z0-9][a-z0-9.+_-]{0,10}@[a-z0-9]{1,10}(\.[a-z0-9-]{1,5}){0,2}\.[a-z]{2,8}", fullmatch=True
    )
)
def test_every_mail_address_is_redacted(address: str) -> None:
    """Replace a mail address completely."""
    assert DEFAULT.redact_text(f"from {address} on") == "from [mail] on"


@given(st.text(max_size=200))
def test_the_rest_stays_as_it_is(text: str) -> None:
    """Leave the rest of a text unchanged."""
    pieces = re.split(r"\[(?:mail|phone|card)\]", DEFAULT.redact_text(text))
    at = 0
    for piece in pieces:
        at = text.index(piece, at) + len(piece)


def test_patterns_of_the_file() -> None:
    """Replace matches of the operator's patterns."""
    own = Redactor.of(config('[redaction]\npatterns = ["EMP-[0-9]{3}", "jo[a-z]*"]').redaction)
    assert own.redact_text("EMP-123 is joe@example.com") == "[redacted] is [mail]"
    fewer = Redactor.of(config('[redaction]\ndefaults = ["card"]').redaction)
    assert fewer.redact_text("joe@example.com 4111111111111111") == "joe@example.com [card]"


def test_overlapping() -> None:
    """Replace overlapping matches together, and do not search the replacement again."""
    own = Redactor.of(
        config('[redaction]\ndefaults = []\npatterns = ["abc", "bcd", "redacted", "c"]').redaction
    )
    assert own.redact_text("xabcdx") == "x[redacted]x"


def test_a_long_text_leaves_in_part() -> None:
    """Truncate a long text, and replace a match across the border completely."""
    card = "4111 1111 1111 1111"
    assert DEFAULT.redact_text("x" * (MAX_SENT + 1)) == "x" * MAX_SENT + CUT
    assert DEFAULT.redact_text("x" * (MAX_SENT - 4) + f" {card} y") == "x" * (MAX_SENT - 4) + f" [card]{CUT}"
    assert DEFAULT.redact_text("x" * (MAX_SENT * 3)).endswith(f"x{CUT}")


def test_exactly_the_limit_of_matches_is_replaced() -> None:
    """Accept a text with exactly the maximum number of matches."""
    assert DEFAULT.redact_text("a@b.cd " * MAX_HITS + "end") == "[mail] " * MAX_HITS + "end"


def test_text_beyond_the_limit_of_matches_is_cut() -> None:
    """Truncate a text after the maximum number of matches. Otherwise later matches would leave unredacted."""
    text = "a@b.cd " * (MAX_HITS + 5)
    assert DEFAULT.redact_text(text) == "[mail] " * MAX_HITS + CUT
    slow = Redactor.of(config('[redaction]\npatterns = ["a.*X|a"]').redaction)
    begun = time.process_time()
    assert slow.redact_text("a" * MAX_SENT) == "[redacted]" * MAX_HITS + CUT
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (FULL, "I can't mail [mail] for you."),
        (TextShare("excerpt", 12), f"I can't mail{CUT}"),
        (TextShare("excerpt", 18), f"I can't mail [mail{CUT}"),
        (TextShare("excerpt", 500), "I can't mail [mail] for you."),
        (TextShare("none"), ""),
    ],
)
def test_how_much_leaves(share: TextShare, text: str) -> None:
    """Redact before an excerpt is cut. Otherwise the beginning of an address would leave."""
    sent = DEFAULT.redact(alert("I can't mail joe@example.com for you."), share)
    assert sent.text == text


def test_names_and_reasons() -> None:
    """Redact names and reasons, but no numbers in names and ids."""
    sent = DEFAULT.redact(
        alert(
            tenant="joe@example.com",
            model="gpt-2125550123",
            safety_identifier="user joe@example.com",
            reason="said joe@example.com 4111111111111111",
            response_id="resp_2125550123",
        ),
        FULL,
    )
    assert (sent.tenant, sent.model, sent.safety_identifier) == ("[mail]", "gpt-2125550123", "user [mail]")
    assert (sent.reason, sent.response_id) == ("said [mail] [card]", "resp_2125550123")
    rate = DEFAULT.redact(spike(name="joe@example.com"), FULL).rate
    assert rate is not None
    assert rate.name == "[mail]"
    without_tenant = DEFAULT.redact(alert(tenant=None), FULL)
    assert without_tenant.tenant is None


@pytest.mark.parametrize(
    ("share", "left"),
    [
        (FULL, "About [mail], [phone]"),
        (TextShare("excerpt", 8), f"About [m{CUT}"),
        (TextShare(), None),
    ],
)
def test_an_explanation_is_a_text(share: TextShare, left: str | None) -> None:
    """Treat the provider's explanation like the text, since it may quote what a user asked."""
    of = alert(provider_explanation="About joe@example.com, 2125550123")
    assert DEFAULT.redact(of, share).provider_explanation == left
    assert DEFAULT.redact(alert(), share).provider_explanation is None


def test_a_long_explanation_leaves_in_part() -> None:
    """Truncate a long explanation."""
    left = DEFAULT.redact(alert(provider_explanation="x" * 200_000), FULL).provider_explanation
    assert left == "x" * MAX_SENT + CUT


def test_fields_of_producers_and_providers() -> None:
    """Redact addresses in producer and provider fields, and keep ids unchanged for look-ups."""
    names = ("provider", "upstream_provider", "dialect", "provider_category", "reason_class", "reference")
    values = dict.fromkeys((*names, "upstream_response_id"), "x joe@example.com 2125550123")
    sent = DEFAULT.redact(alert(**values), FULL)
    assert {getattr(sent, name) for name in names} == {"x [mail] 2125550123"}
    assert sent.upstream_response_id == values["upstream_response_id"]


def test_sha256() -> None:
    """Hash the original text, so that it can be found in an archive."""
    assert sha256_of("ä") == hashlib.sha256("ä".encode()).hexdigest()
    assert sha256_of("") is None
