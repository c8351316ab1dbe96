"""Rules: how severe an alert is, and what it is about. The first that fits decides.

The file's own rules are asked first, in their order, then those that ship (`rules.toml`). A rule of the file
that has the name of one that ships stands in its place. Where none fits, the worker's severity stays and the
category is `other`.

A refusal is judged twice: when it opens, by the few words there are, and when the whole text is known.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from service.alerts.deciding.matching import Judged, mismatch, unread
from service.alerts.deciding.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.schema import Rule


@cache
def shipped() -> tuple[Rule, ...]:
    """The rules that ship, in their order."""
    text = resources.files("service.alerts.deciding").joinpath("rules.toml").read_text(encoding="utf-8")
    return Config.model_validate(tomllib.loads(text)).rules


def rules_of(config: Config) -> tuple[Rule, ...]:
    """The rules that are asked, in their order."""
    own = {rule.name for rule in config.rules}
    ship = [rule for rule in shipped() if rule.name not in own]
    if isinstance(config.shipped_rules, tuple):
        ship = [rule for rule in ship if rule.name in config.shipped_rules]
    return (*config.rules, *(ship if config.shipped_rules else ()))


class Asked(NamedTuple):
    """A rule that was asked, and why it does not fit; None: it does."""

    rule: Rule
    mismatch: str | None


def ask(alert: ModerationAlert, rules: Iterable[Rule]) -> Iterator[Asked]:
    """Ask one rule after the other, and none after the one that fits."""
    unjudged = Judged(alert, alert.severity)
    for rule in rules:
        why_not = mismatch(rule.match, unjudged)
        if why_not is None and rule.pattern is not None:
            why_not = unread(rule.pattern, alert.text)
        yield Asked(rule, why_not)
        if why_not is None:
            return


def judge(alert: ModerationAlert, rules: Iterable[Rule]) -> Judged:
    """What the rules say of an alert."""
    for rule, why_not in ask(alert, rules):
        if why_not is None:
            return Judged(alert, rule.severity or alert.severity, rule.category or rule.name, rule.name)
    return Judged(alert, alert.severity)
