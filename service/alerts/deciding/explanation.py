"""Explain how an alert was routed: each rule tried, each route, and the decision for each destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from service.alerts.deciding.matching import first_found, mismatch_of_route
from service.alerts.deciding.rules import try_rules
from service.alerts.delivery import Notification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.matching import JudgedAlert
    from service.alerts.deciding.policy import Decision, Policy
    from service.alerts.deciding.rules import RuleAnswer


class Considered(NamedTuple):
    """A route, and the reason why it does not match; None if it matches."""

    name: str
    to: Sequence[str]
    mismatch: str | None


class Explanation(NamedTuple):
    """The decisions on one alert, with their reasons."""

    judged: JudgedAlert
    asked: Sequence[RuleAnswer]
    """Rules that were tried, up to and including the first that matches."""
    because: str
    """Reason why that rule matches, or a note that none does."""
    routes: Sequence[Considered]
    decisions: Mapping[str, Decision]
    """Decision for each destination, by name."""

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain values. Only text that may be sent is included."""
        return {
            "id": self.judged.alert.id,
            "type": self.judged.alert.type,
            "severity": self.judged.severity,
            "category": self.judged.category,
            "rule": self.judged.rule,
            "because": self.because,
            "rules": [_fit(asked.rule.name, asked.mismatch) for asked in self.asked],
            "routes": [{**_fit(route.name, route.mismatch), "to": list(route.to)} for route in self.routes],
            "destinations": {name: _decided(decision) for name, decision in self.decisions.items()},
        }


def explain(policy: Policy, alert: ModerationAlert, now: datetime) -> Explanation:
    """Explain what `policy.decide` does with an alert, by the same functions."""
    judged = policy.judge(alert)
    asked = list(try_rules(alert, policy.rules))
    return Explanation(
        judged=judged,
        asked=asked,
        because=_because(asked, alert.text),
        routes=[
            Considered(name, route.to, mismatch_of_route(route.match, judged))
            for name, route in policy.routes
        ],
        decisions=policy.decide(alert, now),
    )


def _because(asked: Sequence[RuleAnswer], text: str) -> str:
    if not asked or asked[-1].mismatch is not None:
        return "no rule fits: the severity is the worker's"
    rule = asked[-1].rule
    pattern = first_found(rule.pattern or rule.match.text or (), text)
    why = f"text matches {pattern.source}" if pattern else "the alert meets all its criteria"
    return f"the rule {rule.name} fits: {why}"


def _fit(name: str, why_not: str | None) -> dict[str, Any]:
    return {"name": name, "fits": why_not is None, **({"why_not": why_not} if why_not else {})}


def _decided(decision: Decision) -> dict[str, Any]:
    if not isinstance(decision, Notification):
        return {"sent": False, "reason": decision.reason, "why": decision.why}
    return {
        "sent": True,
        "route": decision.route,
        "privacy": decision.privacy,
        "text": decision.alert.text,
        "provider_explanation": decision.alert.provider_explanation,
        "text_sha256": decision.text_sha256,
        "group": decision.dedup_key,
        "resolves": decision.resolves,
    }
