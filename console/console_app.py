"""Compose a console: the reader of the streams, the answers, and the server.

It sets no signal handlers and no logging, so it can run in the process of a test.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from aiohttp import web

from console.access import Access
from console.alert_actions import AlertActions
from console.alerts_page import PARAMETERS as OF_ALERTS
from console.alerts_page import AlertsPage
from console.archive_reading import ArchiveReader
from console.console_errors import ConsoleError
from console.console_server import ConsoleServer
from console.delta_decoding import table_of
from console.event_stream import send_events
from console.health_page import HealthPage
from console.live_reading import LiveReader
from console.live_views import LiveFilter, LiveView
from console.looks import Looks
from console.page_files import STATIC, PageFiles
from console.rate_counts import RateCounts
from console.rates_page import PARAMETERS as OF_RATES
from console.rates_page import RatesPage
from console.read_only_client import read_only
from console.response_page import PARAMETERS as OF_RESPONSE
from console.response_page import ResponsePage
from console.search_page import PARAMETERS as OF_SEARCH
from console.search_page import SearchPage
from console.seen_marks import SeenMarks
from console.site import ApiRoute, Site, in_time
from console.text_access import TextAccess
from service import logs
from service.alerts.deciding.privacy import Redactor
from service.settings import SettingsError, host_and_port
from service.storage.client.connection import client_of

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from console.console_settings import ConsoleSettings
    from console.site import PageRequest
    from console.text_policy import TextPolicy
    from service.alerts.deciding.policy import LoadedPolicy

_OTHER_CONNECTIONS: Final = 200
"""Connections beside those of streams."""

_STOPS_WITHIN: Final = 1.0
"""Maximum seconds for which answers under way are waited for at the end."""


class ConsoleApp:
    """A console.

    Args:
        settings: its settings.
        allows_actions: True if visitors may send alerts again, and mark them as seen.
        alerts_file: destinations, routes and redaction of `alerts.toml`; None without a file.
        static: folder of the pages.

    Raises:
        SettingsError: a file of the settings cannot be used.
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        *,
        allows_actions: bool = False,
        alerts_file: LoadedPolicy | None = None,
        static: Path = STATIC,
    ) -> None:
        self._settings = settings
        self._allows_actions = allows_actions
        self._client = client = read_only(client_of(settings.address, limited=False))
        self._archive = ArchiveReader(settings) if settings.has_archive else None
        self._looks = Looks(settings.console_looks_file, self._archive)
        redactor = None if alerts_file is None else Redactor.of(alerts_file.policy.config.redaction)
        self._texts = TextAccess(redactor, self._looks, hides=settings.console_texts == "hidden")
        self.seen = SeenMarks(self._looks)
        """Marks of alerts."""
        self._counts = RateCounts(client, settings)
        self.live = LiveReader(client, settings, table_of(settings), self._counts)
        self._actions = AlertActions(
            client, settings.names, alerts_file, self._looks, self.seen, allowed=allows_actions
        )
        self._views: WeakValueDictionary[tuple[LiveFilter, bool], LiveView] = WeakValueDictionary()
        self.streams = 0
        """Number of pages that watch."""
        types = {} if alerts_file is None else _types(alerts_file)
        self.site = Site(settings, Access(settings), PageFiles(static), self._routes(types))
        self._runner: web.ServerRunner | None = None
        self._is_stopping = False
        self.port = 0
        """Port of the console, once it has started."""

    @property
    def connections(self) -> Sequence[Transport]:
        """Open connections of clients."""
        server = None if self._runner is None else self._runner.server
        return [] if server is None else [c.transport for c in server.connections if c.transport]

    @property
    def started(self) -> bool:
        """True once it listens."""
        return self.port > 0

    def not_ready(self) -> list[str]:
        """Return the reasons why it cannot serve now. That Redis is away is none: pages say so."""
        return ["stopping"] if self._is_stopping else [] if self.started else ["starting"]

    async def status(self) -> dict[str, Any]:
        """Return its state as JSON values, for people."""
        return {"streams": self.streams, "entries_read": self.live.entries, "behind": self.live.behind}

    async def start(self) -> None:
        """Start to serve.

        Raises:
            SettingsError: the address cannot be used.
        """
        await self.seen.read_back()
        most = self._settings.console_max_streams + _OTHER_CONNECTIONS
        self._runner = web.ServerRunner(
            ConsoleServer(self.site.handle, most), handle_signals=False, shutdown_timeout=_STOPS_WITHIN
        )
        await self._runner.setup()
        host, port = host_and_port(self._settings.console_listen)
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise SettingsError(
                f"DELTALOOM_CONSOLE_LISTEN={self._settings.console_listen!r} cannot be used: "
                f"{error.strerror or error}"
            ) from None
        self.port = self._runner.addresses[0][1]
        logs.logger().info("console started", host=host, port=self.port)

    async def stop(self) -> None:
        """Stop serving, and close everything."""
        self._is_stopping = True
        if self._runner is not None:
            await self._runner.cleanup()
        await self.live.stop()
        await self._actions.close()
        if self._archive is not None:
            await self._archive.close()
        await self._client.aclose()

    def _routes(self, types: Mapping[str, str]) -> list[ApiRoute]:
        """Return the answers of the API; `types` are those of the destinations by name."""
        client, settings, texts = self._client, self._settings, self._texts
        response = ResponsePage(client, settings, self.live, self._archive, texts, self._looks, self.seen)
        alerts = AlertsPage(client, settings.names.all, texts, self.seen)
        rates = RatesPage(client, settings, self._counts, texts.names)
        health = HealthPage(client, settings, texts, types)
        search = SearchPage(self._archive, texts, self._looks)
        return [
            ApiRoute("me", self._me),
            ApiRoute("now", self._now, (*LiveFilter._fields, "texts")),
            ApiRoute("responses/*", in_time(response.answer), OF_RESPONSE),
            ApiRoute("alerts", in_time(alerts.answer), OF_ALERTS),
            ApiRoute("alerts/*/resend", self._actions.resend, acts=True),
            ApiRoute("alerts/*/seen", self._actions.mark_seen, acts=True),
            ApiRoute("rates", in_time(rates.answer), OF_RATES),
            ApiRoute("health", in_time(health.answer), ("texts",)),
            ApiRoute("search", in_time(search.answer), OF_SEARCH),
        ]

    async def _me(self, page: PageRequest) -> dict[str, Any]:
        settings = self._settings
        return {
            "user": page.visitor.name,
            "actions": self._allows_actions,
            "texts": settings.console_texts,
            "archive": settings.has_archive,
            "version": version("deltaloom-worker"),
            "source": settings.prefix,
            "looks_recorded": self._looks.are_recorded,
            "may_show_texts": self._texts.may_be_shown,
        }

    async def _now(self, page: PageRequest) -> web.StreamResponse:
        """Send the responses under way, as server-sent events."""
        if self.streams >= self._settings.console_max_streams:
            raise ConsoleError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many pages watch already: close some, or raise DELTALOOM_CONSOLE_MAX_STREAMS",
            )
        wanted = LiveFilter(*(page.query.text(name) for name in LiveFilter._fields))
        policy = await self._texts.policy(page, "now")
        self.streams += 1
        try:
            return await send_events(page.http, self.live, self._view(wanted, policy))
        finally:
            self.streams -= 1

    def _view(self, wanted: LiveFilter, policy: TextPolicy) -> LiveView:
        """Return the view that all clients with this filter share."""
        view = self._views.get((wanted, policy.hides))
        if view is None:
            view = LiveView(wanted, self.live.responses, policy, self.live.chart, self.live.minute)
            self._views[wanted, policy.hides] = view
        return view


def _types(alerts_file: LoadedPolicy) -> Mapping[str, str]:
    """Return the types of the destinations in a file, by name."""
    return {name: str(options.model_dump()["type"]) for name, options in alerts_file.destinations.items()}
