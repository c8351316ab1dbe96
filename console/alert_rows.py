"""Alerts as JSON values, with what became of them at each destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from console.json_bodies import ms_of
from console.newest_entries import newest_entries
from console.short_fields import LONGEST, LONGEST_TEXT, with_short_fields
from deltaloom.messages import Delivery
from service.alert_parsing import NotAnAlertError, parse_alert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from console.newest_entries import NewestEntry
    from console.seen_marks import SeenMarks
    from console.text_policy import TextPolicy
    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import StreamNames

DELIVERIES_READ: Final = 5000
"""Newest deliveries that are searched for those of the alerts that are shown."""


def alert_in(entry: NewestEntry) -> ModerationAlert | None:
    """Return the alert in an entry; None if another program wrote it."""
    try:
        return with_short_fields(parse_alert(entry.data).alert)
    except NotAnAlertError:
        return None


def delivery_in(entry: NewestEntry) -> Delivery | None:
    """Return the delivery in an entry; None if another program wrote it."""
    try:
        return with_short_fields(Delivery.model_validate_json(entry.data))
    except ValueError:  # pydantic's
        return None


async def deliveries_of(
    client: Redis, partitions: Sequence[StreamNames], most: int = DELIVERIES_READ
) -> tuple[Mapping[str, list[Delivery]], bool]:
    """Return the newest deliveries by the id of their alert, and whether these are all."""
    page = await newest_entries(client, partitions, lambda names: names.deliveries, most)
    found: dict[str, list[Delivery]] = {}
    for entry in page.entries:
        delivery = delivery_in(entry)
        if delivery is not None and delivery.alert_id is not None:
            found.setdefault(delivery.alert_id, []).insert(0, delivery)
    return found, page.next is None


def alert_json(
    alert: ModerationAlert, deliveries: Sequence[Delivery], policy: TextPolicy, seen: SeenMarks
) -> dict[str, Any]:
    """Return an alert as JSON values."""
    last = deliveries[-1] if deliveries else None
    text = policy.beginning_of(alert.text, LONGEST_TEXT)
    return {
        "id": alert.id,
        "type": alert.type,
        "severity": (last and last.severity) or alert.severity,
        "category": last and last.category,
        "rule": last and last.rule,
        "route": last and last.route,
        "kind": alert.kind,
        "text": text,
        "hidden": text is None,
        "status": alert.status,
        "integrity": alert.integrity,
        "reason": policy.reason(alert.reason),
        "reason_class": alert.reason_class,
        "provider_explanation": policy.beginning_of(alert.provider_explanation, LONGEST),
        "response_id": alert.response_id,
        "item_id": alert.item_id,
        "model": policy.name(alert.model),
        "tenant": policy.name(alert.tenant),
        "provider": policy.name(alert.provider),
        "raised_at": ms_of(alert.raised_at),
        "reference": policy.name(alert.reference),
        "reference_url": url_of(policy.name(alert.reference)),
        "rate": _rate(alert, policy),
        "fallback": None if alert.fallback is None else alert.fallback.model_dump(),
        "seen": seen.get(alert.id),
        "deliveries": [delivery_json(each) for each in deliveries],
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as JSON values."""
    began = ms_of(delivery.raised_at) or 0
    return {
        "destination": delivery.destination,
        "outcome": delivery.outcome,
        "after_ms": delivery.latency_ms,
        "attempts": delivery.attempts,
        "answer": delivery.answer,
        "at": began + delivery.latency_ms,
        "digest_id": delivery.digest_id,
        "undelivered_id": None if delivery.outcome == "delivered" else delivery.alert_id,
        "privacy": delivery.privacy,
    }


def url_of(reference: str | None) -> str | None:
    """Return a reference that is a link of the web; None for any other."""
    if reference is None or not reference.isprintable():
        return None
    try:
        parts = urlsplit(reference)
    except ValueError:
        return None
    return reference if parts.scheme in {"http", "https"} and parts.netloc else None


def _rate(alert: ModerationAlert, policy: TextPolicy) -> dict[str, Any] | None:
    if alert.rate is None:
        return None
    times = {name: ms_of(getattr(alert.rate, name)) for name in ("since", "until", "baseline_since")}
    return {**alert.rate.model_dump(mode="json"), **times, "name": policy.name(alert.rate.name)}
