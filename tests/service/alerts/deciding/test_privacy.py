"""What leaves of a text."""

from __future__ import annotations

import hashlib
import math
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.deciding.patterns import MOST_TEXT
from service.alerts.deciding.privacy import CUT, MOST_HITS, MOST_LEAVING, Redactor, _Search, sha256_of
from service.alerts.deciding.schema import Redaction, TextLeaving
from tests.service.alerts.made import alert, config, spike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.alerts.deciding.patterns import Span

DEFAULT = Redactor.of(Redaction())
FULL = TextLeaving("full")


@pytest.mark.parametrize(
    ("text", "struck"),
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
def test_defaults(text: str, struck: str) -> None:
    """A mail address, a phone or card number would leave; or what is none would be struck out."""
    assert DEFAULT.prose(text) == struck


def luhn(digits: str) -> bool:
    """Return whether the last of some digits is their check digit (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


CARDS = Redactor.of(config('[redaction]\ndefaults = ["card"]').redaction)


@given(st.lists(st.text("0123456789", min_size=1, max_size=6), min_size=1, max_size=30))
def test_of_groups_every_run_that_is_a_number_is_struck_out(groups: list[str]) -> None:
    """A card number would leave whose digits are grouped in an odd way, or beside other digits."""
    struck = [False] * len(groups)
    for first in range(len(groups)):
        for last in range(first, len(groups)):
            digits = "".join(groups[first : last + 1])
            if 13 <= len(digits) <= 19 and digits[0] in "23456" and luhn(digits):
                struck[first : last + 1] = [True] * (last + 1 - first)
    left = [group for group, is_struck in zip(groups, struck, strict=True) if not is_struck]
    assert re.findall("[0-9]+", CARDS.prose(" ".join(groups))) == left


def cost(text: str) -> float:
    """CPU seconds for all that is looked for by default in a text that was not seen before."""
    best = math.inf
    for _ in range(3):
        began = time.process_time()
        Redactor.of(Redaction()).prose(text)
        best = min(best, time.process_time() - began)
    return best


NUMBERS = ["3 ", "4 ", "41 ", "4111 1111 1111 1111 ", "+4 ", "(0", "030/", "0049 30 ", "€3 ", "1"]


@pytest.mark.parametrize("unit", [*NUMBERS, "a@", "a.", "a@b.c"])
def test_looking_for_it_is_linear_and_quick(unit: str) -> None:
    """A text of numbers would hold up all alerts until the leases are lost: it took 17 seconds for each."""
    text = unit * (MOST_TEXT // len(unit))
    whole = cost(text)
    assert whole < 10 * cost(text[: len(text) // 4]) + 0.02
    assert whole < 0.5


def test_a_text_is_searched_once_for_all_destinations() -> None:
    """A text would cost as much again for each destination."""
    searched = []

    def spans(text: str) -> Iterator[Span]:
        searched.append(text)
        yield from ()

    redactor = Redactor((_Search(spans, "", in_names=False),))
    texts = [f"text {number}" for number in range(3)]
    for leaving in (FULL, TextLeaving("excerpt", 3), FULL):
        for text in texts:
            redactor.leaving(alert(text), leaving)
    assert searched == texts
    redactor.prose("x" * 2 * MOST_TEXT)
    assert len(searched[-1]) == MOST_TEXT + 1


DIGITS = st.integers(10**11, 10**17 - 1).map(lambda number: f"4{number}")


BESIDE = st.text("ab :,-4\n", max_size=12)


@given(BESIDE.filter(lambda text: text[-1:] != "4"), DIGITS, st.sampled_from(["", " ", "-"]), BESIDE)
def test_every_card_number_is_struck_out(before: str, digits: str, separator: str, after: str) -> None:
    """A card number would leave, by how it is grouped or by what stands around it."""
    check = next(digit for digit in "0123456789" if luhn(digits + digit))
    groups = separator.join(re.findall(".{1,4}", digits + check))
    struck = DEFAULT.prose(f"{before}{groups}{after if after[:1] != '4' else ''}")
    assert not any(group in struck for group in re.findall(r"\d{4,}", groups) if group not in before + after)


@given(
    st.from_regex(
        r"[a-z0-9][a-z0-9.+_-]{0,10}@[a-z0-9]{1,10}(\.[a-z0-9-]{1,5}){0,2}\.[a-z]{2,8}", fullmatch=True
    )
)
def test_every_mail_address_is_struck_out(address: str) -> None:
    """A mail address would leave, whole or in part."""
    assert DEFAULT.prose(f"from {address} on") == "from [mail] on"


@given(st.text(max_size=200))
def test_the_rest_stays_as_it_is(text: str) -> None:
    """Words would be changed that nobody has to be protected from."""
    pieces = re.split(r"\[(?:mail|phone|card)\]", DEFAULT.prose(text))
    at = 0
    for piece in pieces:
        at = text.index(piece, at) + len(piece)


def test_patterns_of_the_file() -> None:
    """What only the operator knows to be private would leave."""
    own = Redactor.of(config('[redaction]\npatterns = ["EMP-[0-9]{3}", "jo[a-z]*"]').redaction)
    assert own.prose("EMP-123 is joe@example.com") == "[redacted] is [mail]"
    fewer = Redactor.of(config('[redaction]\ndefaults = ["card"]').redaction)
    assert fewer.prose("joe@example.com 4111111111111111") == "joe@example.com [card]"


def test_overlapping() -> None:
    """The rest of one would stay behind the other, or what is struck out once would be searched again."""
    own = Redactor.of(
        config('[redaction]\ndefaults = []\npatterns = ["abc", "bcd", "redacted", "c"]').redaction
    )
    assert own.prose("xabcdx") == "x[redacted]x"


def test_a_long_text_leaves_in_part() -> None:
    """What no pattern has looked at would leave; or half of what stands across the border."""
    card = "4111 1111 1111 1111"
    assert DEFAULT.prose("x" * (MOST_LEAVING + 1)) == "x" * MOST_LEAVING + CUT
    assert (
        DEFAULT.prose("x" * (MOST_LEAVING - 4) + f" {card} y") == "x" * (MOST_LEAVING - 4) + f" [card]{CUT}"
    )
    assert DEFAULT.prose("x" * (MOST_LEAVING * 3)).endswith(f"x{CUT}")


def test_exactly_as_many_finds_as_the_limit_are_all_replaced() -> None:
    """The text would end in an exception, and its alert would never leave."""
    assert DEFAULT.prose("a@b.cd " * MOST_HITS + "end") == "[mail] " * MOST_HITS + "end"


def test_more_than_is_looked_for() -> None:
    """Finding ten thousand of something would take the relay's time; or those not looked for would leave."""
    text = "a@b.cd " * (MOST_HITS + 5)
    assert DEFAULT.prose(text) == "[mail] " * MOST_HITS + CUT
    slow = Redactor.of(config('[redaction]\npatterns = ["a.*X|a"]').redaction)
    begun = time.process_time()
    assert slow.prose("a" * MOST_LEAVING) == "[redacted]" * MOST_HITS + CUT
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("leaving", "text"),
    [
        (FULL, "I can't mail [mail] for you."),
        (TextLeaving("excerpt", 12), f"I can't mail{CUT}"),
        (TextLeaving("excerpt", 18), f"I can't mail [mail{CUT}"),
        (TextLeaving("excerpt", 500), "I can't mail [mail] for you."),
        (TextLeaving("none"), ""),
    ],
)
def test_how_much_leaves(leaving: TextLeaving, text: str) -> None:
    """More would leave than a route allows, such as the beginning of an address that the excerpt cuts."""
    sent = DEFAULT.leaving(alert("I can't mail joe@example.com for you."), leaving)
    assert sent.text == text


def test_names_and_reasons() -> None:
    """An address would leave as the name of a tenant; or a tenant's number would be taken for a phone's."""
    sent = DEFAULT.leaving(
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
    rate = DEFAULT.leaving(spike(name="joe@example.com"), FULL).rate
    assert rate is not None
    assert rate.name == "[mail]"
    nobody = DEFAULT.leaving(alert(tenant=None), FULL)
    assert nobody.tenant is None


@pytest.mark.parametrize(
    ("leaving", "left"),
    [
        (FULL, "About [mail], [phone]"),
        (TextLeaving("excerpt", 8), f"About [m{CUT}"),
        (TextLeaving(), None),
    ],
)
def test_an_explanation_is_a_text(leaving: TextLeaving, left: str | None) -> None:
    """What a user asked would leave in the provider's words, by a route that lets no text leave."""
    of = alert(provider_explanation="About joe@example.com, 2125550123")
    assert DEFAULT.leaving(of, leaving).provider_explanation == left
    assert DEFAULT.leaving(alert(), leaving).provider_explanation is None


def test_a_long_explanation_leaves_in_part() -> None:
    """A provider, or whoever claims to be one, could make every message huge."""
    left = DEFAULT.leaving(alert(provider_explanation="x" * 200_000), FULL).provider_explanation
    assert left == "x" * MOST_LEAVING + CUT


def test_what_producers_and_providers_say() -> None:
    """A person's address would leave in a reference; or an id would change, and nobody could look it up."""
    names = ("provider", "upstream_provider", "dialect", "provider_category", "reason_class", "reference")
    said = dict.fromkeys((*names, "upstream_response_id"), "x joe@example.com 2125550123")
    sent = DEFAULT.leaving(alert(**said), FULL)
    assert {getattr(sent, name) for name in names} == {"x [mail] 2125550123"}
    assert sent.upstream_response_id == said["upstream_response_id"]


def test_sha256() -> None:
    """A text that does not leave could not be compared with the one in the archive."""
    assert sha256_of("ä") == hashlib.sha256("ä".encode()).hexdigest()
    assert sha256_of("") is None
