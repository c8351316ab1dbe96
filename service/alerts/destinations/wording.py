"""What a person reads of a notification: a headline, facts, and a reference that ties messages together."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import TYPE_CHECKING
from urllib.parse import quote

from service.alerts.destinations.options import LINK_FIELDS
from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from deltaloom.messages import ModerationAlert, RefusalRate
    from service.alerts.delivery import Notification
    from service.alerts.phases import Phase

_WHAT: Mapping[Phase, str] = {
    "opened": "A model refuses",
    "finished": "A model refused",
    "filtered": "A content filter cut a response off",
    "blocked": "A response was blocked",
    "spike": "Far more is refused than usual",
    "spike_ended": "Refusals are back to usual",
}


def headline(notification: Notification) -> str:
    """One line: what happened, of what category, and whose it is."""
    alert, digest = notification.alert, notification.digest
    if digest:  # its alerts may differ in everything else
        said: tuple[str | None, ...] = (f"{digest.count} similar alerts", notification.category)
    else:
        tenant = alert.tenant and f"tenant {alert.tenant}"
        said = (_WHAT[phase_of(alert)], notification.category, alert.model, tenant)
    test = "[TEST] " if notification.test else ""
    return test + " · ".join(one_line(each) for each in said if each)


def facts(notification: Notification) -> list[tuple[str, str]]:
    """What is known of it, label and value, the most telling first; only what there is."""
    own = (
        ("Severity", notification.severity),
        ("Category", notification.category),
        ("Rule", notification.rule),
    )
    known = own if notification.digest else (*own, *_of_one(notification))
    lines = ((label, one_line(value)) for label, value in known if value)
    return [(label, line) for label, line in lines if line]


def _of_one(notification: Notification) -> list[tuple[str, str | None]]:
    alert = notification.alert
    ended = " · ".join(each for each in (alert.status, alert.reason) if each)
    return [
        ("Model", alert.model),
        ("Tenant", alert.tenant),
        ("Ended", ended),
        *_rate(alert.rate),
        ("Response", alert.response_id),
        ("Item", alert.item_id),
        ("Safety identifier", alert.safety_identifier),
        ("SHA-256 of the text", None if alert.text else notification.text_sha256),
    ]


def _rate(rate: RefusalRate | None) -> list[tuple[str, str | None]]:
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


def cut(text: str, at_most: int, written: Callable[[str], str] = str) -> str:
    """A text as it is written, or as much of its beginning as there is room for, and an ellipsis.

    Args:
        text: any.
        at_most: UTF-16 code units of what is written: the strictest way in which receivers count.
        written: how it is written, for example with some characters escaped; what is longer stays longer.
    """
    if len(text) <= at_most and _units(whole := written(text)) <= at_most:
        return whole
    fits = bisect_right(
        range(min(len(text), at_most)), at_most, lo=1, key=lambda end: _units(written(text[:end] + "…"))
    )
    return written(text[: fits - 1] + "…")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
