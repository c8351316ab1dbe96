"""Encode a notification as JSON: the fields of the stream's alert, and those of its delivery."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.alerts.delivery import Digest, Notification


def as_object(notification: Notification) -> dict[str, Any]:
    """Return the fields of the ModerationAlert, and those of the notification under `delivery`.

    Readers that know only the ModerationAlert may ignore `delivery`.
    """
    return {
        **notification.alert.model_dump(mode="json"),
        "delivery": {
            "id": notification.id,
            "severity": notification.severity,
            "category": notification.category,
            "rule": notification.rule,
            "route": notification.route,
            "privacy": notification.privacy,
            "text_sha256": notification.text_sha256,
            "group": notification.dedup_key,  # not the grouping key: this name is part of the contract
            "resolves": notification.resolves,
            "test": notification.test,
            "digest": _digest(notification.digest) if notification.digest else None,
        },
    }


def as_json(value: dict[str, Any]) -> bytes:
    """Return compact JSON in UTF-8; `?` replaces an unpaired surrogate, which UTF-8 cannot encode."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _digest(digest: Digest) -> dict[str, Any]:
    return {
        "count": digest.count,
        "since": digest.since.isoformat(),
        "until": digest.until.isoformat(),
        "counts": [list(each) for each in digest.counts],
        "examples": [as_object(each) for each in digest.examples],
    }
