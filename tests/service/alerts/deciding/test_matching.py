"""What a `match` asks for, and patterns."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.alerts.deciding.matching import Judged, fits, mismatch, mismatch_of_route
from service.alerts.deciding.patterns import MOST_PATTERN, MOST_TEXT, Pattern, Span
from service.alerts.deciding.schema import Match
from tests.service.alerts.made import alert, spike, stopped

if TYPE_CHECKING:
    from deltaloom import ModerationAlert

FINISHED = alert(
    "I can't.",
    "refusal.finished",
    status="completed",
    reason="max_output_tokens",
    provider="aws.bedrock",
    reason_class="length",
)
UNKNOWN = alert("I can't.", "prompt.flagged", kind="prompt", severity="severe", status="held")


@pytest.mark.parametrize(
    ("match", "why_not"),
    [
        ({}, None),
        ({"phase": "finished", "kind": "refusal", "status": ["failed", "completed"]}, None),
        ({"severity": "critical", "category": "self-*", "tenant": "acme", "model": "gpt-*"}, None),
        ({"reason": "max_*", "text": ["nothing", r"can't\."]}, None),
        ({"provider": ["openai", "aws.*"], "reason_class": ["length", "error"]}, None),
        ({"phase": ["opened", "blocked"]}, "phase is finished, not opened or blocked"),
        ({"kind": "reasoning"}, "kind is refusal, not reasoning"),
        ({"severity": "info"}, "severity is critical, not info"),
        ({"category": "harm"}, "category is self-harm, not harm"),
        ({"tenant": ["acm", "acme?"]}, "tenant is acme, not acm or acme?"),
        ({"model": "*-y"}, "model is gpt-x, not *-y"),
        ({"status": "failed"}, "status is completed, not failed"),
        ({"reason": "content_filter"}, "reason is max_output_tokens, not content_filter"),
        ({"reason_class": "safety"}, "reason_class is length, not safety"),
        ({"provider": "openai"}, "provider is aws.bedrock, not openai"),
        ({"text": "I won't"}, "text has nothing that matches I won't"),
        ({"text": ["a{3}", "b{3}"]}, "text has nothing that matches one of the 2 patterns"),
        ({"tenant": "acme", "model": "other"}, "model is gpt-x, not other"),
    ],
)
def test_criteria(match: dict[str, object], why_not: str | None) -> None:
    """An alert would go where nobody wants it, or nowhere; or the explanation would name another reason."""
    judged = Judged(FINISHED, "critical", "self-harm", "rule")
    assert mismatch(Match.model_validate(match), judged) == why_not


@pytest.mark.parametrize(
    ("match", "why_not"),
    [
        ({}, None),
        ({"severity": ["warning", "critical"]}, None),
        ({"severity": "critical"}, "severity is warning, not critical"),
        ({"phase": "finished", "severity": "warning"}, None),
        ({"phase": "finished", "tenant": "other"}, "tenant is acme, not other"),
        ({"kind": "refusal"}, "kind is prompt, not refusal"),
        ({"status": "failed"}, "status is held, not failed"),
    ],
)
def test_a_route_takes_an_unknown_type_by_everything_but_its_phase(
    match: dict[str, object], why_not: str | None
) -> None:
    """Routes that list the phases of today would keep every alert of a later version from everybody."""
    judged = Judged(UNKNOWN, UNKNOWN.severity)
    assert mismatch_of_route(Match.model_validate(match), judged) == why_not


def test_a_rule_or_a_mute_that_asks_for_a_phase_takes_no_unknown_type() -> None:
    """A mute of beginnings would silence what nobody knows yet."""
    why_not = mismatch(Match(phase=("opened",)), Judged(UNKNOWN, UNKNOWN.severity))
    assert why_not == "phase is deltaloom.prompt.flagged, not opened"


def test_a_route_that_asks_for_a_phase_takes_no_other_known_one() -> None:
    """Every route would get everything."""
    judged = Judged(FINISHED, "critical")
    assert mismatch_of_route(Match(phase=("opened",)), judged) == "phase is finished, not opened"


@pytest.mark.parametrize("of", [stopped("filtered", "content_filter"), spike()])
def test_what_is_not_known_does_not_fit(of: ModerationAlert) -> None:
    """A match on the kind of a text would take alerts that are about none."""
    assert mismatch(Match(kind=("refusal",)), Judged(of, "info")) == "kind is not known, not refusal"


@given(st.text("ab*", max_size=6), st.text("ab", max_size=12))
@example("ab*ba", "aba")
@example("*a*a", "a")
@example("a*a*", "a")
@example("*ab*b", "ab")
@example("*", "")
def test_wildcards(name: str, value: str) -> None:
    """A `*` in a name would not stand for any characters, or another character for more than itself."""
    expected = re.fullmatch(".*".join(map(re.escape, name.split("*"))), value) is not None
    assert fits(name, value) == expected


def test_wildcards_are_linear() -> None:
    """A tenant could stop the relay by its name."""
    begun = time.process_time()
    assert not fits("*a" * 50 + "b", "a" * 100_000)
    assert time.process_time() - begun < 1


def test_patterns_are_linear_and_bounded() -> None:
    """A text could stop the relay: by what makes other engines backtrack, or by its length."""
    begun = time.process_time()
    assert Pattern(r"(\w+\s*)+$x").find("word " * 20_000) is None
    assert time.process_time() - begun < 1
    assert Pattern("needle").find("x" * (MOST_TEXT - 6) + "needle") == Span(MOST_TEXT - 6, MOST_TEXT)
    assert Pattern("needle").find("x" * (MOST_TEXT - 5) + "needle") is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x" * (MOST_PATTERN + 1), "characters at most"),
        (r"(a)\1", "RE2"),
        (r"\pL{1000}", "too large"),
        ("a|", "takes every text"),
        ("(", "missing )"),
        ("\ud83d", "surrogate"),
    ],
)
def test_patterns_that_are_refused(source: str, says: str) -> None:
    """A pattern would be compiled for ever, take all by accident, or end the relay with a traceback."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Pattern(source)


def test_spans_count_characters() -> None:
    """What is struck out would be shifted in a text with characters beyond ASCII."""
    assert list(Pattern("ä|x").spans("😀ä-x")) == [Span(1, 2), Span(3, 4)]
    assert list(Pattern("ä|x").spans("\ud83dä\ud83dx")) == [Span(1, 2), Span(3, 4)]
    assert Pattern("^$").find("") == Span(0, 0)
