"""Rules: the first rule that matches an alert decides its severity and category.

The file's own rules are tried first, in their order, then the shipped ones (`rules.toml`). A rule of the file
replaces a shipped rule of the same name. If no rule matches, the worker's severity stays and the category is
`other`.

A refusal is judged twice: when it opens, by its first words, and again when its whole text is known.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from service.alerts.deciding.matching import (
    JudgedAlert,
    facts_of,
    mismatch,
    mismatch_of_facts,
    text_mismatch,
)
from service.alerts.deciding.patterns import PatternSet
from service.alerts.deciding.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.matching import WantedFact
    from service.alerts.deciding.patterns import Pattern
    from service.alerts.deciding.schema import AlertRule


@cache
def shipped() -> tuple[AlertRule, ...]:
    """Return the shipped rules in their order."""
    text = resources.files("service.alerts.deciding").joinpath("rules.toml").read_text(encoding="utf-8")
    return Config.model_validate(tomllib.loads(text)).rules


def rules_of(config: Config) -> tuple[AlertRule, ...]:
    """Return the rules that apply, in the order in which they are tried."""
    own = {rule.name for rule in config.rules}
    not_replaced = [rule for rule in shipped() if rule.name not in own]
    if isinstance(config.shipped_rules, tuple):
        not_replaced = [rule for rule in not_replaced if rule.name in config.shipped_rules]
    return (*config.rules, *(not_replaced if config.shipped_rules else ()))


class RuleAnswer(NamedTuple):
    """A rule that was tried, and the reason why it does not match; None if it matches."""

    rule: AlertRule
    mismatch: str | None


def try_rules(alert: ModerationAlert, rules: Iterable[AlertRule]) -> Iterator[RuleAnswer]:
    """Try the rules in order, and stop after the first that matches."""
    as_written = JudgedAlert(alert, alert.severity)
    for rule in rules:
        why_not = mismatch(rule.match, as_written)
        if why_not is None and rule.pattern is not None:
            why_not = text_mismatch(rule.pattern, alert.text)
        yield RuleAnswer(rule, why_not)
        if why_not is None:
            return


class _PreparedRule(NamedTuple):
    rule: AlertRule
    facts: tuple[WantedFact, ...]
    patterns: frozenset[int]
    """Indexes of the rule's patterns among those of all rules."""


class Judge:
    """A judge that finds the first rule that matches an alert, as `try_rules` does, but much faster.

    It searches for the patterns of all rules together, and then tries only rules whose patterns it found.
    """

    def __init__(self, rules: Iterable[AlertRule]) -> None:
        self._rules: list[_PreparedRule] = []
        patterns: list[Pattern] = []
        for rule in rules:
            own = rule.pattern or rule.match.text or ()
            indexes = frozenset(range(len(patterns), len(patterns) + len(own)))
            self._rules.append(_PreparedRule(rule, tuple(facts_of(rule.match)), indexes))
            patterns += own
        self._patterns = PatternSet(patterns)

    def judge(self, alert: ModerationAlert) -> JudgedAlert:
        """Return the alert with the severity and category of the first rule that matches."""
        as_written = JudgedAlert(alert, alert.severity)
        found = self._patterns.found(alert.text)
        for rule, facts, patterns in self._rules:
            if patterns and patterns.isdisjoint(found):
                continue
            if mismatch_of_facts(facts, as_written) is None:
                category = rule.category or rule.name
                return JudgedAlert(alert, rule.severity or alert.severity, category, rule.name)
        return as_written
