"""A PagerDuty service, by the Events API v2.

Every event about one text has its dedup key, so that PagerDuty makes one alert of them; with `dedup_by`
those that are alike share one.

Fields and limits: https://developer.pagerduty.com/docs/events-api-v2-overview, …/docs/send-alert-event
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from service.alerts.destinations import body, secrets, wording
from service.alerts.destinations.ending import closes
from service.alerts.destinations.http import HttpClient
from service.alerts.likeness import likeness
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Notification, Outcome
    from service.alerts.destinations.options import PagerDutyOptions

SUMMARY_AT_MOST = 1024
DEDUP_KEY_AT_MOST = 255
EVENT_AT_MOST = 512 * 1024
"""Bytes of a whole event."""

_TEXT_AT_MOST = 16 * 1024
"""UTF-16 code units of a text, each at most six bytes of JSON."""
_EXAMPLE_TEXT_AT_MOST = 4 * 1024
"""UTF-16 code units of a text in a digest, which has three texts."""
_NAME_AT_MOST = 1000
"""UTF-16 code units of a fact, each at most three bytes; an alert has twenty facts."""
_LINE_AT_MOST = 500
_LINES_AT_MOST = 50
_EXAMPLES_AT_MOST = 3


class PagerDutyDestination:
    """See the module."""

    def __init__(self, name: str, options: PagerDutyOptions, environment: Mapping[str, str]) -> None:
        """Find the routing key; `DestinationError` if it is not there."""
        self.name = name
        self._options = options
        self._routing_key = secrets.needed(options.routing_key_env, options.routing_key_file, environment)
        self._client = HttpClient(options, [self._routing_key])

    async def deliver(self, notification: Notification) -> Outcome:
        """Enqueue one event."""
        written = body.as_json(event(notification, self._options, self._routing_key))
        headers = {"Content-Type": "application/json"}
        return await self._client.post(self._options.url, written, headers, wording.texts(notification))

    async def aclose(self) -> None:
        """Give back the connections."""
        await self._client.aclose()


def event(notification: Notification, options: PagerDutyOptions, routing_key: str) -> dict[str, Any]:
    """The event that is sent."""
    alert, alone = notification.alert, notification.digest is None
    target = wording.link(options.link, alert) if alone else None
    component = alert.model or alert.provider
    return {
        "routing_key": routing_key,
        "event_action": "resolve" if closes(notification, options.resolve) else "trigger",
        "dedup_key": _dedup_key(notification, options),
        "client": "deltaloom",
        "payload": {
            "summary": wording.cut(wording.headline(notification), SUMMARY_AT_MOST),
            "source": wording.cut(options.source, _NAME_AT_MOST),
            "severity": known(notification.severity),
            "timestamp": alert.raised_at.isoformat(),
            "group": wording.cut(notification.category, _NAME_AT_MOST),
            "class": "deltaloom.digest" if notification.digest else wording.cut(alert.type, _NAME_AT_MOST),
            **({"component": wording.cut(component, _NAME_AT_MOST)} if component and alone else {}),
            "custom_details": _details(notification),
        },
        "links": [{"href": target, "text": "Open the response"}] if target else [],
    }


def _details(notification: Notification, text_at_most: int = _TEXT_AT_MOST) -> dict[str, Any]:
    """What an incident's page shows as a table."""
    digest = notification.digest
    facts = {label: wording.cut(value, _NAME_AT_MOST) for label, value in wording.facts(notification)}
    details: dict[str, Any] = {
        **facts,
        "Reference": wording.reference(notification.group),
        "Alert": wording.cut(notification.id, _NAME_AT_MOST),
    }
    if notification.alert.text:
        details["Text"] = wording.cut(notification.alert.text, text_at_most)
    if notification.alert.provider_explanation:
        details["Explanation"] = wording.cut(notification.alert.provider_explanation, _NAME_AT_MOST)
    if digest is not None:
        details["From"], details["To"] = wording.time(digest.since), wording.time(digest.until)
        details["Counts"] = [
            wording.cut(each, _LINE_AT_MOST) for each in wording.counts(notification)[:_LINES_AT_MOST]
        ]
        details["Examples"] = [
            _details(each, _EXAMPLE_TEXT_AT_MOST) for each in digest.examples[:_EXAMPLES_AT_MOST]
        ]
    return details


def _dedup_key(notification: Notification, options: PagerDutyOptions) -> str:
    """What PagerDuty makes one alert of: a text, or all that are alike. A spike is always its own."""
    alike = options.dedup_by and notification.alert.rate is None
    key = f"deltaloom/{likeness(notification, options.dedup_by) if alike else notification.group}"
    if len(key) <= DEDUP_KEY_AT_MOST:
        return key
    return f"deltaloom/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
