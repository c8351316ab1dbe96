"""Mail, Teams, Discord, Telegram and all other services of the library apprise.

The library blocks, so it runs in a thread, one message at a time. It makes its own connections, restricted to
public and allowed addresses (`service/alerts/destinations/guard.py`). Redirects are not followed, and
certificates are verified, whatever the URL requests. The timeouts are apprise's: four seconds for a
connection and four for each part of the answer, unless the URL sets others (`cto=`, `rto=`).

Apprise reports whether a message was sent, and logs the HTTP status. For services that do not use HTTP, the
cause of a failure is unknown, and the message is retried until the alert is given up.
"""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, FiniteFloat, model_validator

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import answers, secrets, wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.guard import guarded
from service.alerts.destinations.options import CommonOptions, Network, NeverInFile, Variable, exactly_one
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    import apprise

    from service.alerts.delivery import Notification

_TYPES = {
    "info": "info",
    "warning": "warning",
    "critical": "failure",
}
"""Type of an apprise message, by severity."""
_MAX_TEXT = 16_000
"""Maximum length in UTF-16 code units; each service cuts further to its own limit."""
_STATUS = re.compile(r"\berror=(\d{3})\b")
_MARKUP = re.compile(
    r"@(?=\w)"  # a mention, of somebody or of everybody
    r"|<(?=\S)"  # a mention, a link or a tag
    r"|\](?=[(\[:])"  # a link under other words
    r"|:(?=//)|(?<=mailto):|(?<=tel):|(?<=javascript):|(?<=www)\.",  # a link as it stands
    re.IGNORECASE,
)
"""Markup that a chat or mail program would interpret; a zero-width space after it prevents that."""
_SECRET_PIECE = re.compile(r"[\w.~%-]{6,}")

logging.getLogger("apprise").propagate = False  # its log messages become the answer


class AppriseOptions(CommonOptions):
    """Options of any service that the library apprise knows: mail, Teams, Discord, Telegram and others."""

    type: Literal["apprise"]
    url: NeverInFile = None
    url_env: Variable | None = None
    """Variable with a single apprise URL."""
    url_file: Path | None = None
    timeout: FiniteFloat = Field(default=30, gt=0, le=120)
    """Seconds for one attempt."""
    allow_addresses: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        exactly_one(self, "url_env", "url_file")
        return self


class AppriseDestination:
    """A destination that sends by apprise."""

    def __init__(self, name: str, options: AppriseOptions, environment: Mapping[str, str]) -> None:
        """Read the URL and check it with apprise.

        Raises:
            DestinationError: the secret does not exist, or apprise cannot or must not use the URL.
        """
        self.name = name
        self._options = options
        self._url = secrets.required_secret(options.url_env, options.url_file, environment)
        self._secrets = frozenset(_SECRET_PIECE.findall(self._url.partition("://")[2]))
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"apprise {name}")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # raised by imports of apprise's plugins, all of which are loaded now
            self._service(options.url_env or str(options.url_file))

    async def deliver(self, notification: Notification) -> Outcome:
        """Send the notification by the service that the URL names."""
        title = _without_markup(wording.headline(notification))
        body = _body(notification, self._options.link)
        kind = "success" if notification.resolves else _TYPES[known(notification.severity)]
        send = partial(self._send, title, body, kind, wording.texts(notification))
        async with self._lock:  # acquired first: waiting for other messages does not use up the timeout
            try:
                async with asyncio.timeout(self._options.timeout):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, send)
            except TimeoutError:
                return Outcome(Verdict.RETRY, f"not sent within {self._options.timeout:g} s")

    async def aclose(self) -> None:
        """Let the thread end after its current message."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _send(self, title: str, body: str, kind: str, texts: list[str]) -> Outcome:
        import apprise

        with guarded(self._options.allow_addresses) as guard:
            try:
                result = self._service().notify(
                    body=body,
                    title=title,
                    notify_type=apprise.NotifyType(kind),
                    body_format=apprise.NotifyFormat.TEXT,
                )
            except Exception as error:  # noqa: BLE001 - none of nearly two hundred plugins may stop the relay
                return Outcome(Verdict.RETRY, answers.line(f"apprise failed: {type(error).__name__}"))
        if result:
            return Outcome(Verdict.DELIVERED, "sent")
        said = [entry.message for entry in result.logs()]
        answer = answers.line("; ".join(said) or "not sent; apprise gives no reason", self._secrets, texts)
        return Outcome(_verdict(said), answers.line("; ".join((*guard.refused, answer))))

    def _service(self, where: str = "") -> apprise.Apprise:
        """Return a new service for a message, since an apprise object remembers what it has sent."""
        import apprise

        asset = apprise.AppriseAsset(async_mode=False, service_timeout=0, http_redirects=False)
        service = apprise.Apprise(asset=asset)
        if not service.add(self._url):
            raise DestinationError(
                f"{where} does not hold a URL that apprise knows, or its service needs a package "
                "that is not installed"
            )
        for each in service:
            each.redirects = False  # the URL may say redirect=yes
            if not each.verify_certificate:
                raise DestinationError(f"the URL in {where} has verify=no; certificates are always verified")
        return service


def _body(notification: Notification, link: str | None) -> str:
    """Return the body of a message."""
    identity = _without_markup(wording.one_line(notification.id))
    parts = [
        "\n".join(f"{label}: {_without_markup(value)}" for label, value in wording.facts(notification)),
        _without_markup("\n".join(wording.counts(notification))),
        *(wording.cut(text, _MAX_TEXT, _without_markup) for text in wording.texts(notification)),
        wording.link(link, notification.alert) or "",  # from the operator's file, so it stays clickable
        f"Reference: #{wording.message_reference(notification.dedup_key)} · {identity}",
    ]
    return "\n\n".join(part for part in parts if part)


def _without_markup(text: str) -> str:
    """Return a text in which no chat or mail program recognizes a mention or a link."""
    return _MARKUP.sub(lambda found: f"{found[0]}\u200b", text)


def _verdict(said: list[str]) -> Verdict:
    """Return the verdict for the HTTP statuses that apprise logged: retry if they disagree or are missing."""
    from service.alerts.destinations.http import verdict_of

    verdicts = [verdict_of(int(found[1])) for line in said if (found := _STATUS.search(line))]
    hopeful = [verdict for verdict in verdicts if verdict is not Verdict.DELIVERED]
    return hopeful[0] if len(set(hopeful)) == 1 else Verdict.RETRY


destination = DestinationType(AppriseOptions, AppriseDestination)
