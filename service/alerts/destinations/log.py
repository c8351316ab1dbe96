"""A destination that writes a line to this program's log.

Texts and a provider's explanation are logged under the keys `text` and `provider_explanation`, which
`service/logs.py` removes unless `DELTALOOM_LOG_TEXT=true`. Its lines are deliveries, so `DELTALOOM_LOG_BURST`
does not limit them; `rate_limit` and digests do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from service import logs
from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.options import CommonOptions
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Notification

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


class LogOptions(CommonOptions):
    """Options of the log destination; it logs a text only if `DELTALOOM_LOG_TEXT=true`."""

    type: Literal["log"]


class LogDestination:
    """A destination that writes to the log."""

    def __init__(self, name: str, options: LogOptions, environment: Mapping[str, str]) -> None:
        """Store the options; only `link` matters here."""
        del environment  # this type needs no secrets
        self.name = name
        self._link = options.link

    async def deliver(self, notification: Notification) -> Outcome:
        """Write one line at the level of the severity."""
        alert, fallback = notification.alert, notification.alert.fallback
        of_one = {
            "type": alert.type,
            "response_id": alert.response_id,
            "item_id": alert.item_id,
            "tenant": alert.tenant,
            "model": alert.model,
            "provider": alert.provider,
            "status": alert.status,
            "reason": alert.reason,
            "reason_class": alert.reason_class,
            "provider_category": alert.provider_category,
            "provider_explanation": alert.provider_explanation,
            "from_model": fallback and fallback.from_model,
            "to_model": fallback and fallback.to_model,
            "trigger": fallback and fallback.trigger,
            "request": wording.producer_reference(alert),
            "upstream_response_id": alert.upstream_response_id,
            "link": wording.link(self._link, alert),
            "text_sha256": notification.text_sha256,
        }
        fields = {
            **({} if notification.digest else of_one),
            "destination": self.name,
            "notification": notification.id,
            "reference": wording.message_reference(notification.dedup_key),
            "category": notification.category,
            "rule": notification.rule,
            "counts": wording.counts(notification),
            "text": "\n\n".join(wording.model_texts(notification)),
        }
        given = {name: value for name, value in fields.items() if value}
        logs.unlimited().log(_LEVELS[known(notification.severity)], wording.headline(notification), **given)
        return Outcome(Verdict.DELIVERED, "written")

    async def aclose(self) -> None:
        """Do nothing; no resources are held."""


destination = DestinationType(LogOptions, LogDestination)
