"""A server that accepts signed POST requests: Standard Webhooks, a ModerationAlert or CloudEvent as body.

Headers (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
`webhook-id`, the same in every attempt; `webhook-timestamp`, the time of the attempt; and
`webhook-signature`, with a signature for each secret. So a receiver can verify one of them before and after
it changes to a new secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from service.alerts.destinations import body, secrets, wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.options import (
    Files,
    HttpOptions,
    NeverInFile,
    Variable,
    Variables,
    WebAddress,
    exactly_one,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from standardwebhooks import Webhook

    from service.alerts.delivery import Notification, Outcome


_HEADER_VALUE = re.compile(r"[!-~]{1,1024}")
_KEY_BYTES = range(24, 65)
"""Allowed length of a secret in bytes, from the specification."""


class WebhookOptions(HttpOptions):
    """Options of a server that accepts POST requests signed as in Standard Webhooks."""

    type: Literal["webhook"]
    url: WebAddress | None = None
    url_env: Variable | None = None
    url_file: Path | None = None
    secret: NeverInFile = None
    secret_env: Variables = ()
    """Variables of one or several secrets; each one signs, so that receivers can rotate them gradually."""
    secret_file: Files = ()
    envelope: Literal["none", "cloudevents"] = "none"
    source: str = "deltaloom"
    """Sender: the attribute `source` of a CloudEvent, a URI reference."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        exactly_one(self, "url", "url_env", "url_file")
        if not self.secret_env and not self.secret_file:
            raise ValueError("a secret to sign with: secret_env or secret_file")
        return self


class WebhookDestination:
    """A destination that posts signed webhooks."""

    def __init__(self, name: str, options: WebhookOptions, environment: Mapping[str, str]) -> None:
        """Read the URL and the secrets.

        Raises:
            DestinationError: a secret does not exist or is not valid.
        """
        from service.alerts.destinations.http import HttpClient

        self.name = name
        self._url = options.url or secrets.web_address(options.url_env, options.url_file, environment)
        found = {variable: secrets.from_variable(variable, environment) for variable in options.secret_env}
        found |= {str(path): secrets.from_file(path) for path in options.secret_file}
        self._signers = [_signer(where, secret) for where, secret in found.items()]
        self._source = options.source
        self._to_body, self._content_type = _ENVELOPES[options.envelope]
        self._client = HttpClient(options, found.values())

    async def deliver(self, notification: Notification) -> Outcome:
        """Post the notification; any 2xx answer confirms it."""
        data = body.as_json(self._to_body(notification, self._source))
        return await self._client.post(
            self._url, data, self._headers(notification.id, data), wording.texts(notification)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _headers(self, message_id: str, data: bytes) -> dict[str, str]:
        now = datetime.now(UTC)
        message_id = _in_a_header(message_id)
        signatures = (signer.sign(message_id, now, data.decode()) for signer in self._signers)
        return {
            "Content-Type": self._content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def _signer(where: str, secret: str) -> Webhook:
    from standardwebhooks import Webhook

    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) not in _KEY_BYTES:
        raise DestinationError(
            f"{where} does not hold a signing secret: whsec_ and the base64 of 24 to 64 "
            'random bytes, as in echo "whsec_$(openssl rand -base64 32)"'
        )
    return Webhook(key)


def _in_a_header(message_id: str) -> str:
    """Return an id that fits into a header: the id itself if it is short printable ASCII, else its digest."""
    if _HEADER_VALUE.fullmatch(message_id):
        return message_id
    return f"sha256_{hashlib.sha256(message_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _without_envelope(notification: Notification, _source: str) -> dict[str, Any]:
    return body.as_object(notification)


def _cloud_event(notification: Notification, source: str) -> dict[str, Any]:
    """Return a CloudEvent 1.0 in structured mode, with the extension for distributed tracing."""
    alert = notification.alert
    return {
        "specversion": "1.0",
        "id": notification.id,
        "source": source,
        "type": alert.type,
        "subject": notification.dedup_key,
        "time": alert.raised_at.isoformat(),
        "datacontenttype": "application/json",
        **({"traceparent": alert.traceparent} if alert.traceparent else {}),
        "data": body.as_object(notification),
    }


_ENVELOPES: dict[str, tuple[Callable[[Notification, str], dict[str, Any]], str]] = {
    "none": (_without_envelope, "application/json"),
    "cloudevents": (_cloud_event, "application/cloudevents+json"),
}


destination = DestinationType(WebhookOptions, WebhookDestination)
