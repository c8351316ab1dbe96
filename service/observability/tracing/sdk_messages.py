"""Keep the messages of OpenTelemetry's SDK out of the log, and remember the latest one without secrets.

The SDK logs each failure, some of them with headers or URLs in full. The log gets one line when sending
begins to fail, with the latest message as its reason.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from service.visible import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

_SDK: Final = "opentelemetry"
_HTTP: Final = "urllib3"
"""The HTTP client of the SDK, and of some destinations of alerts. At the level debug, it logs whole URLs."""
_MAX_REASON: Final = 300
_HIDDEN: Final = "(not shown)"


class SdkMessages(logging.Handler):
    """The messages of the SDK, from warnings on.

    Args:
        secrets: strings that are replaced in every message.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(logging.WARNING)
        # The longest first, since one may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)
        self.latest: str | None = None
        """The latest message, in one line of limited length; None before the first."""

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a message."""
        self.latest = self.without_secrets(record.getMessage())

    def without_secrets(self, message: str) -> str:
        """Return a message in one line, without secrets."""
        for secret in self._secrets:
            message = message.replace(secret, _HIDDEN)
        return shortened(visible(" ".join(message.split())), _MAX_REASON)

    def install(self) -> None:
        """Take the messages out of the log of this process."""
        sdk = logging.getLogger(_SDK)
        sdk.handlers[:], sdk.propagate = [self], False
        logging.getLogger(_HTTP).setLevel(logging.WARNING)

    def uninstall(self) -> None:
        """Let the messages go into the log again."""
        sdk = logging.getLogger(_SDK)
        sdk.handlers[:], sdk.propagate = [], True
        logging.getLogger(_HTTP).setLevel(logging.NOTSET)


def secrets_of(url: str, headers: str) -> set[str]:
    """Return the parts of a receiver's URL and headers that may be secret.

    Args:
        url: URL of the receiver.
        headers: headers in the form of `OTEL_EXPORTER_OTLP_HEADERS`.
    """
    parts = urlsplit(url)
    found = {parts.netloc.rpartition("@")[0], parts.username, parts.password, parts.query}
    for header in (headers, *headers.split(",")):
        found |= {header.strip(), header.partition("=")[2].strip()}
    words = {word for each in found if each for word in (each, *each.split())}
    return {form for word in words if len(word) > 1 for form in (word, unquote(word))}
