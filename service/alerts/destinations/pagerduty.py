"""A PagerDuty service, via the Events API v2.

All events about a text share a dedup key, so PagerDuty merges them into one alert. With `dedup_by`, alerts
that have the given fields in common share a key.

Fields and limits: https://developer.pagerduty.com/docs/events-api-v2-overview, …/docs/send-alert-event
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from service.alerts.destinations import body, secrets, wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.ending import closes
from service.alerts.destinations.options import (
    HttpOptions,
    NeverInFile,
    Resolve,
    Variable,
    WebAddress,
    exactly_one,
)
from service.alerts.grouping_key import GroupField, grouping_key
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from service.alerts.delivery import Notification, Outcome

MAX_SUMMARY = 1024
MAX_DEDUP_KEY = 255
MAX_EVENT = 512 * 1024
"""Maximum size of an event, in bytes."""

_MAX_TEXT = 16 * 1024
"""Maximum UTF-16 code units of a text; each takes at most six bytes of JSON."""
_MAX_EXAMPLE_TEXT = 4 * 1024
"""Maximum UTF-16 code units of a text in a digest, which has three texts."""
_MAX_NAME = 1000
"""Maximum UTF-16 code units of a fact; each takes at most three bytes, and an alert has twenty facts."""
_MAX_LINE = 500
_MAX_LINES = 50
_MAX_EXAMPLES = 3


class PagerDutyOptions(HttpOptions):
    """Options of a PagerDuty service, via the Events API v2."""

    type: Literal["pagerduty"]
    url: WebAddress = "https://events.pagerduty.com/v2/enqueue"
    """URL of the API; in the service region EU: `https://events.eu.pagerduty.com/v2/enqueue`."""
    routing_key: NeverInFile = None
    routing_key_env: Variable | None = None
    routing_key_file: Path | None = None
    source: str = "deltaloom"
    dedup_by: tuple[GroupField, ...] = ()
    """Fields that the alerts of one incident have in common; if empty, each text has its own incident."""
    resolve: Resolve = "spikes"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        exactly_one(self, "routing_key_env", "routing_key_file")
        if self.dedup_by and self.resolve == "all":
            raise ValueError(
                'dedup_by or resolve = "all": one refusal that ends must not close an incident of several'
            )
        return self


class PagerDutyDestination:
    """A destination that sends events to PagerDuty."""

    def __init__(self, name: str, options: PagerDutyOptions, environment: Mapping[str, str]) -> None:
        """Read the routing key.

        Raises:
            DestinationError: the secret does not exist or is not valid.
        """
        from service.alerts.destinations.http import HttpClient

        self.name = name
        self._options = options
        self._routing_key = secrets.required_secret(
            options.routing_key_env, options.routing_key_file, environment
        )
        self._client = HttpClient(options, [self._routing_key])

    async def deliver(self, notification: Notification) -> Outcome:
        """Enqueue one event."""
        written = body.as_json(event(notification, self._options, self._routing_key))
        headers = {"Content-Type": "application/json"}
        return await self._client.post(self._options.url, written, headers, wording.texts(notification))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def event(notification: Notification, options: PagerDutyOptions, routing_key: str) -> dict[str, Any]:
    """Return the event to send."""
    alert, alone = notification.alert, notification.digest is None
    target = wording.link(options.link, alert) if alone else None
    component = alert.model or alert.provider
    return {
        "routing_key": routing_key,
        "event_action": "resolve" if closes(notification, options.resolve) else "trigger",
        "dedup_key": _dedup_key(notification, options),
        "client": "deltaloom",
        "payload": {
            "summary": wording.cut(wording.headline(notification), MAX_SUMMARY),
            "source": wording.cut(options.source, _MAX_NAME),
            "severity": known(notification.severity),
            "timestamp": alert.raised_at.isoformat(),
            "group": wording.cut(notification.category, _MAX_NAME),
            "class": "deltaloom.digest" if notification.digest else wording.cut(alert.type, _MAX_NAME),
            **({"component": wording.cut(component, _MAX_NAME)} if component and alone else {}),
            "custom_details": _details(notification),
        },
        "links": [{"href": target, "text": "Open the response"}] if target else [],
    }


def _details(notification: Notification, text_at_most: int = _MAX_TEXT) -> dict[str, Any]:
    """Return the custom details, which an incident's page shows as a table."""
    digest = notification.digest
    facts = {label: wording.cut(value, _MAX_NAME) for label, value in wording.facts(notification)}
    details: dict[str, Any] = {
        **facts,
        "Reference": wording.message_reference(notification.dedup_key),
        "Alert": wording.cut(notification.id, _MAX_NAME),
    }
    if notification.alert.text:
        details["Text"] = wording.cut(notification.alert.text, text_at_most)
    if notification.alert.provider_explanation:
        details["Explanation"] = wording.cut(notification.alert.provider_explanation, _MAX_NAME)
    if digest is not None:
        details["From"], details["To"] = wording.time(digest.since), wording.time(digest.until)
        details["Counts"] = [
            wording.cut(each, _MAX_LINE) for each in wording.counts(notification)[:_MAX_LINES]
        ]
        details["Examples"] = [_details(each, _MAX_EXAMPLE_TEXT) for each in digest.examples[:_MAX_EXAMPLES]]
    return details


def _dedup_key(notification: Notification, options: PagerDutyOptions) -> str:
    """Return the key by which PagerDuty merges events: of the text, or of `dedup_by` except for spikes."""
    alike = options.dedup_by and notification.alert.rate is None
    key = f"deltaloom/{grouping_key(notification, options.dedup_by) if alike else notification.dedup_key}"
    if len(key) <= MAX_DEDUP_KEY:
        return key
    return f"deltaloom/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


destination = DestinationType(PagerDutyOptions, PagerDutyDestination)
