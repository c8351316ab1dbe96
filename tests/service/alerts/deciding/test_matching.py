"""Test the criteria of a `match`, wildcards and patterns."""

from __future__ import annotations

import re
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.alerts.deciding.matching import JudgedAlert, fits, mismatch, mismatch_of_route
from service.alerts.deciding.patterns import MAX_PATTERN, MAX_TEXT, Pattern, PatternSet, Span
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
        ({"text": "I won't"}, "text does not match I won't"),
        ({"text": ["a{3}", "b{3}"]}, "text matches none of the 2 patterns"),
        ({"tenant": "acme", "model": "other"}, "model is gpt-x, not other"),
    ],
)
def test_criteria(match: dict[str, object], why_not: str | None) -> None:
    """Match an alert against all criteria, and name the first mismatch."""
    judged = JudgedAlert(FINISHED, "critical", "self-harm", "rule")
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
    """Ignore a route's `phase` for unknown types. Otherwise alerts of a later version would reach nobody."""
    judged = JudgedAlert(UNKNOWN, UNKNOWN.severity)
    assert mismatch_of_route(Match.model_validate(match), judged) == why_not


def test_a_rule_or_a_mute_that_asks_for_a_phase_takes_no_unknown_type() -> None:
    """Apply `phase` of rules and mutes to unknown types. Otherwise a mute could silence new alerts."""
    why_not = mismatch(Match(phase=("opened",)), JudgedAlert(UNKNOWN, UNKNOWN.severity))
    assert why_not == "phase is deltaloom.prompt.flagged, not opened"


def test_a_route_that_asks_for_a_phase_takes_no_other_known_one() -> None:
    """Apply a route's `phase` to known types. Otherwise each route would get all alerts."""
    judged = JudgedAlert(FINISHED, "critical")
    assert mismatch_of_route(Match(phase=("opened",)), judged) == "phase is finished, not opened"


@pytest.mark.parametrize("of", [stopped("filtered", "content_filter"), spike()])
def test_missing_values_do_not_match(of: ModerationAlert) -> None:
    """Treat a missing value as a mismatch. Otherwise a match on `kind` would take alerts without one."""
    assert mismatch(Match(kind=("refusal",)), JudgedAlert(of, "info")) == "kind is not known, not refusal"


@given(st.text("ab*", max_size=6), st.text("ab", max_size=12))
@example("ab*ba", "aba")
@example("*a*a", "a")
@example("a*a*", "a")
@example("*ab*b", "ab")
@example("*", "")
def test_wildcards(name: str, value: str) -> None:
    """Match `*` with any characters, and other characters literally."""
    expected = re.fullmatch(".*".join(map(re.escape, name.split("*"))), value) is not None
    assert fits(name, value) == expected


def test_wildcards_are_linear() -> None:
    """Match wildcards in linear time. Otherwise a tenant's name could block the relay."""
    begun = time.process_time()
    assert not fits("*a" * 50 + "b", "a" * 100_000)
    assert time.process_time() - begun < 1


def test_patterns_are_linear_and_bounded() -> None:
    """Search patterns in linear time, up to a maximum length. Otherwise a text could block the relay."""
    begun = time.process_time()
    assert Pattern(r"(\w+\s*)+$x").find("word " * 20_000) is None
    assert time.process_time() - begun < 1
    assert Pattern("needle").find("x" * (MAX_TEXT - 6) + "needle") == Span(MAX_TEXT - 6, MAX_TEXT)
    assert Pattern("needle").find("x" * (MAX_TEXT - 5) + "needle") is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x" * (MAX_PATTERN + 1), "characters at most"),
        (r"(a)\1", "RE2"),
        (r"\pL{1000}", "too large"),
        ("a|", "matches every text"),
        ("(", "missing )"),
        ("\ud83d", "surrogate"),
    ],
)
def test_patterns_that_are_refused(source: str, message: str) -> None:
    """Refuse a pattern that is too large, matches all texts, or is invalid."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Pattern(source)


def test_spans_count_characters() -> None:
    """Count spans in characters. Otherwise redaction would be shifted in texts beyond ASCII."""
    assert list(Pattern("ä|x").spans("😀ä-x")) == [Span(1, 2), Span(3, 4)]
    assert list(Pattern("ä|x").spans("\ud83dä\ud83dx")) == [Span(1, 2), Span(3, 4)]
    assert Pattern("^$").find("") == Span(0, 0)


# ruff: noqa: RUF001 - letters whose case differs in unusual ways

PIECES = [
    "a",
    "B",
    "k",
    "ſ",
    "İ",
    "ß",
    "é",
    "😀",
    "ab",
    "@",
    r"\d",
    r"\pL",
    r"\b",
    ".",
    "[a-c]",
    "[^k]",
    "^",
    "$",
    "(?i)k",
]
SOURCES = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2,3}"])).map("(?:{0[0]}){0[1]}".format),
        inner.map(lambda source: f"(?i:{source})"),
    ),
    max_leaves=6,
)


def usable(source: str) -> bool:
    """Return whether a source is allowed as a pattern."""
    try:
        Pattern(source)
    except ValueError:
        return False
    return True


@given(
    st.lists(SOURCES.filter(usable).map(Pattern), max_size=5),
    st.text(st.sampled_from("aAbBkKKsſiİßéÉ😀@1 \n\ud83d"), max_size=12),
)
def test_patterns_together_find_what_each_finds(patterns: list[Pattern], text: str) -> None:
    """Find the patterns that match, each as if it were alone."""
    alone = [index for index, pattern in enumerate(patterns) if pattern.find(text)]
    assert list(PatternSet(patterns).found(text)) == alone


def test_patterns_too_many_to_be_searched_together() -> None:
    """Search for each pattern alone if RE2's memory is too small for all of them together."""
    patterns = [Pattern(sha256(bytes([high, low])).hexdigest()) for high in range(6) for low in range(256)]
    assert list(PatternSet(patterns).found(f"{patterns[7].source} and {patterns[3].source}")) == [3, 7]
