"""A Prometheus Alertmanager, via its API v2.

An Alertmanager identifies an alert by its labels, and considers it firing from `startsAt` until `endsAt`. So
the labels hold what stays the same from a text's beginning to its end; everything else is an annotation. A
refusal fires for some minutes (`firing_for`), because an alert that ends before the `group_wait` is sent to
nobody. A spike fires until its end is sent.

Fields: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from service.alerts.destinations import secrets, wording
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
from service.alerts.phases import phase_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from service.alerts.delivery import Notification, Outcome
    from service.alerts.phases import Phase

_PATH = "/api/v2/alerts"
DIGEST = "DeltaloomDigest"
OTHER = "DeltaloomAlert"
"""Alert name for a type that this version does not know."""
NAMES: Mapping[Phase, str] = {
    "opened": "DeltaloomRefusal",
    "finished": "DeltaloomRefusal",
    "refused": "DeltaloomResponseRefused",
    "filtered": "DeltaloomResponseFiltered",
    "blocked": "DeltaloomResponseBlocked",
    "fallback": "DeltaloomResponseFallback",
    "contradicted": "DeltaloomTextContradicted",
    "spike": "DeltaloomRefusalSpike",
    "spike_ended": "DeltaloomRefusalSpike",
}
_SPIKE_FIRES_FOR = timedelta(days=1)
"""Maximum time a spike fires if its end is never sent."""
_MAX_FIRED = 10_000
_MAX_TEXT = 4000


LabelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class AlertmanagerOptions(HttpOptions):
    """Options of a Prometheus Alertmanager, via its API v2."""

    type: Literal["alertmanager"]
    url: WebAddress | None = None
    """URL of the Alertmanager; `/api/v2/alerts` is appended unless present."""
    url_env: Variable | None = None
    url_file: Path | None = None
    authorization: NeverInFile = None
    authorization_env: Variable | None = None
    """Variable with the whole value of the header, such as `Bearer …`."""
    authorization_file: Path | None = None
    labels: dict[LabelName, str] = Field(default_factory=dict)
    """Additional labels, for the routes of the Alertmanager."""
    firing_for: FiniteFloat = Field(default=300, gt=0, le=86400)
    """Seconds for which an alert about one text fires; must exceed the Alertmanager's `group_wait`."""
    resolve: Resolve = "spikes"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        exactly_one(self, "url", "url_env", "url_file")
        if self.authorization_env and self.authorization_file:
            raise ValueError("one of authorization_env, authorization_file, not both")
        return self


class AlertmanagerDestination:
    """A destination that posts alerts to an Alertmanager."""

    def __init__(self, name: str, options: AlertmanagerOptions, environment: Mapping[str, str]) -> None:
        """Read the URL and the authorization.

        Raises:
            DestinationError: a secret that the options name does not exist or is not valid.
        """
        from service.alerts.destinations.http import HttpClient

        self.name = name
        self._options = options
        url = options.url or secrets.web_address(options.url_env, options.url_file, environment)
        self._url = url.rstrip("/").removesuffix(_PATH) + _PATH
        authorization = secrets.secret(options.authorization_env, options.authorization_file, environment)
        self._headers = {"Content-Type": "application/json"}
        if authorization is not None:
            self._headers["Authorization"] = authorization
        self._client = HttpClient(options, (authorization or "").split())
        self._fired: OrderedDict[str, dict[str, str]] = OrderedDict()

    async def deliver(self, notification: Notification) -> Outcome:
        """Post one alert. The Alertmanager merges repeated posts of the same alert."""
        alert = self._alert(notification)
        written = json.dumps([alert]).encode()
        return await self._client.post(self._url, written, self._headers, wording.texts(notification))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _alert(self, notification: Notification) -> dict[str, Any]:
        begins = notification.alert.raised_at
        closing = closes(notification, self._options.resolve)
        target = wording.link(self._options.link, notification.alert)
        return {
            "labels": self._labels(notification, closing=closing),
            "annotations": _annotations(notification),
            "startsAt": begins.isoformat(),
            "endsAt": (begins if closing else self._ends(notification, begins)).isoformat(),
            **({"generatorURL": target} if target else {}),
        }

    def _ends(self, notification: Notification, begins: datetime) -> datetime:
        """Return when the alert stops firing: counted from now, as its delivery may have waited long."""
        spike = phase_of(notification.alert) == "spike"
        fires_for = _SPIKE_FIRES_FOR if spike else timedelta(seconds=self._options.firing_for)
        return max(begins, datetime.now(UTC)) + fires_for

    def _labels(self, notification: Notification, *, closing: bool) -> dict[str, str]:
        """Return the labels; for a closing notification, return the labels of the alert that it closes.

        Severity and category may differ at the end, if a rule matches only the whole text. If another process
        sent the beginning, the end's own labels are used, which are nearly always the same.
        """
        labels = labels_of(notification, self._options.labels)
        if closing:
            return self._fired.get(notification.dedup_key, labels)
        self._fired[notification.dedup_key] = labels
        self._fired.move_to_end(notification.dedup_key)
        if len(self._fired) > _MAX_FIRED:
            self._fired.popitem(last=False)
        return labels


def labels_of(notification: Notification, more: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that identify the alert; `more`, from the options, overrides the others."""
    alert = notification.alert
    phase = phase_of(alert)
    of_one = {
        "alertname": OTHER if phase is None else NAMES[phase],
        "type": alert.type if phase is None else None,
        "tenant": alert.tenant,
        "model": alert.model,
        "provider": alert.provider,
        "kind": alert.kind,
    }
    labels = {
        **({"alertname": DIGEST} if notification.digest else of_one),
        "severity": notification.severity,
        "category": notification.category,
        "reference": wording.message_reference(notification.dedup_key),
        "test": "true" if notification.test else None,
        **more,
    }
    written = {name: wording.one_line(value) for name, value in labels.items() if value}
    return {name: value for name, value in written.items() if value}


def _annotations(notification: Notification) -> dict[str, str]:
    alert, digest = notification.alert, notification.digest
    fallback = alert.fallback
    of_one = {
        "response_id": alert.response_id,
        "item_id": alert.item_id,
        "status": alert.status,
        "reason": alert.reason,
        "reason_class": alert.reason_class,
        "provider_category": alert.provider_category,
        "from_model": fallback and fallback.from_model,
        "to_model": fallback and fallback.to_model,
        "trigger": fallback and fallback.trigger,
        "upstream_provider": alert.upstream_provider,
        "upstream_response_id": alert.upstream_response_id,
        "request": wording.producer_reference(alert),
    }
    annotations = {
        **({} if digest else of_one),
        "summary": wording.headline(notification),
        "description": _description(notification),
        "alert_id": notification.id,
        "rule": notification.rule,
        "text_sha256": notification.text_sha256,
        "count": str(digest.count) if digest else None,
    }
    return {name: value for name, value in annotations.items() if value}


def _description(notification: Notification) -> str:
    """Return the text, or a digest's counts and texts, or else the facts, as of a spike."""
    lines = wording.counts(notification)
    lines += [wording.cut(text, _MAX_TEXT) for text in wording.texts(notification)]
    if not lines:
        lines = [f"{label}: {value}" for label, value in wording.facts(notification)]
    return "\n".join(lines)


destination = DestinationType(AlertmanagerOptions, AlertmanagerDestination)
