"""What a person reads of a notification: a headline, facts, and a reference that ties messages together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from service.alerts.destinations.options import LINK_FIELDS

if TYPE_CHECKING:
    from datetime import datetime

    from deltaloom.messages import ModerationAlert, RefusalRate
    from service.alerts.delivery import Notification

_WHAT = {
    "deltaloom.refusal.opened": "A model refuses",
    "deltaloom.refusal.finished": "A model refused",
    "deltaloom.response.filtered": "A content filter cut a response off",
    "deltaloom.response.blocked": "A response was blocked",
    "deltaloom.refusal.spike": "Far more is refused than usual",
    "deltaloom.refusal.spike.ended": "Refusals are back to usual",
}


def headline(notification: Notification) -> str:
    """One line: what happened, of what category, and whose it is."""
    alert, digest = notification.alert, notification.digest
    what = f"{digest.count} similar alerts" if digest else _WHAT.get(alert.type, alert.type)
    whose = (notification.category, alert.model, alert.tenant and f"tenant {alert.tenant}")
    test = "[TEST] " if notification.test else ""
    return test + " · ".join(one_line(each) for each in (what, *whose) if each)


def facts(notification: Notification) -> list[tuple[str, str]]:
    """What is known of it, label and value, the most telling first; only what there is."""
    alert = notification.alert
    ended = " · ".join(each for each in (alert.status, alert.reason) if each)
    every = (
        ("Severity", notification.severity),
        ("Category", notification.category),
        ("Model", alert.model),
        ("Tenant", alert.tenant),
        ("Ended", ended),
        *_rate(alert.rate),
        ("Response", alert.response_id),
        ("Item", alert.item_id),
        ("Safety identifier", alert.safety_identifier),
        ("Rule", notification.rule),
        ("SHA-256 of the text", None if alert.text else notification.text_sha256),
    )
    return [(label, one_line(value)) for label, value in every if value]


def _rate(rate: RefusalRate | None) -> list[tuple[str, str]]:
    if rate is None:
        return []
    return [
        (
            "Refused",
            f"{rate.refused} of {rate.responses} responses ({rate.share:.1%}) since {time(rate.since)}",
        ),
        (
            "Before",
            f"{rate.baseline_refused} of {rate.baseline_responses} responses ({rate.baseline_share:.1%})",
        ),
    ]


def counts(notification: Notification) -> list[str]:
    """What a digest counts, a line each."""
    digest = notification.digest
    return [] if digest is None else [f"{number} times {one_line(what)}" for what, number in digest.counts]


def texts(notification: Notification) -> list[str]:
    """All that a model said in it."""
    digest = notification.digest
    said = [notification.alert.text, *(each.alert.text for each in (digest.examples if digest else ()))]
    return [text for text in said if text]


def reference(group: str) -> str:
    """A short name of what belongs together, the same in every message of it: eight hexadecimal digits."""
    return hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def link(template: str | None, alert: ModerationAlert) -> str | None:
    """Where a person reads more; None if there is no link, or the alert has not what stands in it."""
    if template is None:
        return None
    values = {name: getattr(alert, name) for name in LINK_FIELDS if f"{{{name}}}" in template}
    if None in values.values():
        return None
    return template.format(**{name: quote(value, safe="") for name, value in values.items()})


def time(moment: datetime) -> str:
    """A time to read, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """A name or a reason as it may stand in a line: whatever is no character to see is a space."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def cut(text: str, at_most: int) -> str:
    """The beginning of a text, of so many UTF-16 code units at most: the strictest way receivers count.

    What is cut ends with an ellipsis.
    """
    if len(text) * 2 <= at_most or _units(text) <= at_most:
        return text
    kept = text[: at_most - 1]
    while _units(kept) > at_most - 1:
        kept = kept[: -max((_units(kept) - at_most + 1) // 2, 1)]
    return kept + "…"


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
