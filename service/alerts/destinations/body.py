"""A notification as JSON: the alert as subscribers of the stream know it, and what delivery adds to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.alerts.delivery import Digest, Notification


def as_object(notification: Notification) -> dict[str, Any]:
    """The fields of a ModerationAlert, and under `delivery` those of the notification.

    A reader that knows only the ModerationAlert may ignore `delivery`.
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
            "group": notification.group,
            "resolves": notification.resolves,
            "test": notification.test,
            "digest": _digest(notification.digest) if notification.digest else None,
        },
    }


def as_json(value: dict[str, Any]) -> bytes:
    """Compact JSON in UTF-8; a lone half of a surrogate pair, which UTF-8 cannot have, is a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _digest(digest: Digest) -> dict[str, Any]:
    return {
        "count": digest.count,
        "since": digest.since.isoformat(),
        "until": digest.until.isoformat(),
        "counts": [list(each) for each in digest.counts],
        "examples": [as_object(each) for each in digest.examples],
    }
