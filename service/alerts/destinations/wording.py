"""Word notifications: headline, facts, links, and a reference that connects related messages.

Values of producers and providers may be hostile. This module turns each into a line without control
characters. It also percent-encodes links and the producer's reference, so that they cannot become mark-up, a
mention or another link anywhere.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import quote

from deltaloom.messages import KnownRateScope
from service.alerts.destinations.options import LINK_FIELDS, WHOLE_LINK
from service.alerts.phases import phase_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from deltaloom.messages import ModelFallback, ModerationAlert, RefusalRate
    from service.alerts.delivery import Notification
    from service.alerts.phases import Phase

_WHAT: Mapping[Phase, str] = {
    "opened": "A model refuses",
    "finished": "A model refused",
    "refused": "A response was refused without a text",
    "filtered": "A filter cut a response off",
    "blocked": "A response was blocked",
    "fallback": "Another model answered for one that refused",
    "contradicted": "Another text came for a finished one",
    "spike": "Far more is refused than usual",
    "spike_ended": "Refusals are back to usual",
}

_HTTP_URL: Final = re.compile(
    r"(?P<server>https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?)(?P<rest>[/?#][!-~]*|)"
)
"""Pattern of an HTTP or HTTPS URL in ASCII, without a user, white space or control characters."""
_URL_CHARACTERS: Final = "/?#:;=&%+,"
"""Characters that stay unencoded in a URL: they have no meaning in Slack, Markdown or HTML."""


def headline(notification: Notification) -> str:
    """Return one line with the event, its category, and its model or provider and tenant."""
    alert, digest = notification.alert, notification.digest
    if digest:  # its alerts may differ in the other fields
        parts: tuple[str | None, ...] = (f"{digest.count} similar alerts", notification.category)
    else:
        tenant = alert.tenant and f"tenant {alert.tenant}"
        provider = alert.provider and not alert.model and f"provider {alert.provider}"
        parts = (_what(alert), notification.category, alert.model, provider or None, tenant)
    test = "[TEST] " if notification.test else ""
    return test + " · ".join(one_line(each) for each in parts if each)


def _what(alert: ModerationAlert) -> str:
    phase = phase_of(alert)
    return f"Alert {alert.type}" if phase is None else _WHAT[phase]


def facts(notification: Notification) -> list[tuple[str, str]]:
    """Return the known facts as pairs of label and value, the most informative first."""
    own = (
        ("Severity", one_line(notification.severity) or known(notification.severity)),
        ("Category", notification.category),
        ("Rule", notification.rule),
    )
    given = own if notification.digest else (*own, *_of_one(notification))
    lines = ((label, one_line(value)) for label, value in given if value)
    return [(label, line) for label, line in lines if line]


def _of_one(notification: Notification) -> list[tuple[str, str | None]]:
    alert = notification.alert
    return [
        ("Type", None if phase_of(alert) else alert.type),
        *_fallback(alert.fallback),
        ("Model", alert.model),
        ("Tenant", alert.tenant),
        ("Provider", _joined(alert.provider, alert.upstream_provider)),
        ("Ended", _joined(alert.status, alert.reason)),
        ("Because of", _joined(alert.reason_class, alert.provider_category)),
        *_rate(alert.rate),
        ("Request", producer_reference(alert)),
        ("Response", alert.response_id),
        ("Item", alert.item_id),
        ("Provider's id", alert.upstream_response_id),
        ("Safety identifier", alert.safety_identifier),
        ("Too long to tell", ", ".join(alert.context_truncated)),
        ("SHA-256 of the text", None if alert.text else notification.text_sha256),
    ]


def _joined(*values: str | None) -> str:
    return " · ".join(each for each in values if each)


def _fallback(fallback: ModelFallback | None) -> list[tuple[str, str | None]]:
    if fallback is None:
        return []
    return [
        ("Refused by", fallback.from_model),
        ("Answered by", fallback.to_model),
        ("Trigger", fallback.trigger),
    ]


def _rate(rate: RefusalRate | None) -> list[tuple[str, str | None]]:
    if rate is None:
        return []
    blocked = rate.blocked or rate.baseline_blocked
    return [
        ("Counted by", None if rate.by in get_args(KnownRateScope) else _joined(rate.by, rate.name)),
        (
            "Refused",
            f"{rate.refused} of {rate.responses} responses ({rate.share:.1%}) since {time(rate.since)}",
        ),
        (
            "Before",
            f"{rate.baseline_refused} of {rate.baseline_responses} responses ({rate.baseline_share:.1%})",
        ),
        (
            "Blocked",
            f"{rate.blocked} of {rate.responses}, before {rate.baseline_blocked}" if blocked else None,
        ),
    ]


def counts(notification: Notification) -> list[str]:
    """Return the counts of a digest, a line each; empty if the notification is not a digest."""
    digest = notification.digest
    return [] if digest is None else [f"{number} times {one_line(what)}" for what, number in digest.counts]


def model_texts(notification: Notification) -> list[str]:
    """Return the model's texts in a notification."""
    return [alert.text for alert in _alerts(notification) if alert.text]


def texts(notification: Notification) -> list[str]:
    """Return the model's texts and the provider's explanations in a notification."""
    explained = (alert.provider_explanation for alert in _alerts(notification))
    return [*model_texts(notification), *(explanation for explanation in explained if explanation)]


def _alerts(notification: Notification) -> list[ModerationAlert]:
    digest = notification.digest
    return [notification.alert, *(each.alert for each in (digest.examples if digest else ()))]


def message_reference(dedup_key: str) -> str:
    """Return eight hexadecimal digits that are the same in all messages with a deduplication key."""
    return hashlib.sha256(dedup_key.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def link(template: str | None, alert: ModerationAlert) -> str | None:
    """Return the link of an alert; None if the template is None, or the alert lacks a value for it."""
    if template is None:
        return None
    if template == WHOLE_LINK:
        return _own_link(alert.reference)
    values = {name: getattr(alert, name) for name in LINK_FIELDS if f"{{{name}}}" in template}
    if not all(value and value.strip(".") for value in values.values()):  # dots alone would change the path
        return None
    return template.format(**{name: _quoted(value) for name, value in values.items()})


def _own_link(reference: str | None) -> str | None:
    """Return a reference, encoded, if it is an HTTP URL; else None."""
    found = _HTTP_URL.fullmatch(reference or "")
    return found and found["server"] + _quoted(found["rest"], _URL_CHARACTERS)


def producer_reference(alert: ModerationAlert) -> str | None:
    """Return the producer's reference, percent-encoded so that it can only be a word or a URL."""
    return alert.reference and _quoted(alert.reference, _URL_CHARACTERS)


def _quoted(value: str, safe: str = "") -> str:
    return quote(value, safe=safe, errors="replace")


def time(moment: datetime) -> str:
    """Return a time in UTC for a person to read."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """Return a text as a single line; spaces replace unprintable characters and runs of white space."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def cut(text: str, at_most: int, written: Callable[[str], str] = str) -> str:
    """Return a formatted text, or as much of its beginning as fits, with an ellipsis.

    Args:
        text: the text before formatting.
        at_most: maximum UTF-16 code units of the result, the strictest way in which receivers count.
        written: formats the text, for example by escaping; a longer input must not give a shorter result.
    """
    if len(text) <= at_most and _units(whole := written(text)) <= at_most:
        return whole
    fits = bisect_right(
        range(min(len(text), at_most)), at_most, lo=1, key=lambda end: _units(written(text[:end] + "…"))
    )
    return written(text[: fits - 1] + "…")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
