"""Everything else: mail, Teams, Discord, Telegram and what more the library apprise knows.

It waits for its answers, so it runs in a thread, one message at a time. It brings its own connections;
those go to public addresses and allowed ones only (`service/alerts/destinations/guard.py`), redirects are
not followed and certificates are verified, whatever the URL says. How long an answer may take is apprise's
own: four seconds for a connection and four for each part of the answer, unless the URL says otherwise
(`cto=`, `rto=`).

Apprise says whether a message went out and, in its log, which HTTP status it got. A service that is not
spoken to by HTTP says less, and then it is tried again until the alert is given up.
"""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import apprise

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import answers, secrets, wording
from service.alerts.destinations.errors import DestinationError
from service.alerts.destinations.guard import guarded
from service.alerts.destinations.http import verdict_of
from service.alerts.severity import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Notification
    from service.alerts.destinations.options import AppriseOptions

_TYPES = {
    "info": apprise.NotifyType.INFO,
    "warning": apprise.NotifyType.WARNING,
    "critical": apprise.NotifyType.FAILURE,
}
_TEXT_AT_MOST = 16_000
"""UTF-16 code units; each service cuts further to what it takes."""
_STATUS = re.compile(r"\berror=(\d{3})\b")
_MEANS_MORE = re.compile(
    r"@(?=\w)"  # a mention, of somebody or of everybody
    r"|<(?=\S)"  # a mention, a link or a tag
    r"|\](?=[(\[:])"  # a link under other words
    r"|:(?=//)|(?<=mailto):|(?<=tel):|(?<=javascript):|(?<=www)\.",  # a link as it stands
    re.IGNORECASE,
)
"""What a chat or a mail program would read as more than text; a zero-width space after it prevents that."""
_SECRET_PIECE = re.compile(r"[\w.~%-]{6,}")

logging.getLogger("apprise").propagate = False  # what it has to say stands in the answer


class AppriseDestination:
    """See the module."""

    def __init__(self, name: str, options: AppriseOptions, environment: Mapping[str, str]) -> None:
        """Find the URL and let apprise read it; `DestinationError` if it cannot, or must not be used."""
        self.name = name
        self._options = options
        self._url = secrets.needed(options.url_env, options.url_file, environment)
        self._secrets = frozenset(_SECRET_PIECE.findall(self._url.partition("://")[2]))
        self._turn = asyncio.Lock()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"apprise {name}")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of what its plugins import, all of them, now
            self._service(options.url_env or str(options.url_file))

    async def deliver(self, notification: Notification) -> Outcome:
        """Send it by the one service that the URL names."""
        title = _harmless(wording.headline(notification))
        body = _body(notification, self._options.link)
        kind = apprise.NotifyType.SUCCESS if notification.resolves else _TYPES[known(notification.severity)]
        send = partial(self._send, title, body, kind, wording.texts(notification))
        async with self._turn:  # so that waiting for others is not of its time
            try:
                async with asyncio.timeout(self._options.timeout):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, send)
            except TimeoutError:
                return Outcome(Verdict.RETRY, f"not sent within {self._options.timeout:g} s")

    async def aclose(self) -> None:
        """Let the thread end when it is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _send(self, title: str, body: str, kind: apprise.NotifyType, texts: list[str]) -> Outcome:
        with guarded(self._options.allow_addresses) as guard:
            try:
                result = self._service().notify(
                    body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
                )
            except Exception as error:  # noqa: BLE001 - nearly two hundred plugins; none may stop the relay
                return Outcome(Verdict.RETRY, answers.line(f"apprise failed: {type(error).__name__}"))
        if result:
            return Outcome(Verdict.DELIVERED, "sent")
        said = [entry.message for entry in result.logs()]
        told = answers.line("; ".join(said) or "not sent; apprise does not say why", self._secrets, texts)
        return Outcome(_verdict(said), answers.line("; ".join((*guard.refused, told))))

    def _service(self, where: str = "") -> apprise.Apprise:
        """Made anew for each message: apprise remembers of a service what it has sent."""
        asset = apprise.AppriseAsset(async_mode=False, service_timeout=0, http_redirects=False)
        service = apprise.Apprise(asset=asset)
        if not service.add(self._url):
            raise DestinationError(
                f"what stands in {where} is no URL that apprise knows, or one whose service needs a package "
                "that is not installed"
            )
        for each in service:
            each.redirects = False  # the URL may say redirect=yes
            if not each.verify_certificate:
                raise DestinationError(
                    f"what stands in {where} says verify=no; certificates are always verified"
                )
        return service


def _body(notification: Notification, link: str | None) -> str:
    """What a mail would say under its subject."""
    identity = _harmless(wording.one_line(notification.id))
    parts = [
        "\n".join(f"{label}: {_harmless(value)}" for label, value in wording.facts(notification)),
        _harmless("\n".join(wording.counts(notification))),
        *(wording.cut(text, _TEXT_AT_MOST, _harmless) for text in wording.texts(notification)),
        wording.link(link, notification.alert) or "",  # the operator's: the one link that works
        f"Reference: #{wording.reference(notification.group)} · {identity}",
    ]
    return "\n\n".join(part for part in parts if part)


def _harmless(text: str) -> str:
    """Break up what a chat or a mail program would read as a mention or as a link."""
    return _MEANS_MORE.sub(lambda found: f"{found[0]}\u200b", text)


def _verdict(said: list[str]) -> Verdict:
    """What the HTTP statuses mean that apprise logged; the most hopeful of several."""
    verdicts = [verdict_of(int(found[1])) for line in said if (found := _STATUS.search(line))]
    hopeful = [verdict for verdict in verdicts if verdict is not Verdict.DELIVERED]
    return hopeful[0] if len(set(hopeful)) == 1 else Verdict.RETRY
