"""Actions on alerts: send one again, or mark it as seen."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from console.console_errors import ConsoleError, bad_request, not_found
from console.looks import name_of
from service import logs
from service.alert_parsing import NotAnAlertError, parse_alert
from service.alerts.destinations.failures import DestinationError
from service.cli.alerts.all_undelivered import AllUndelivered
from service.cli.alerts.resend import FileDestinations, send_again
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from console.looks import Looks
    from console.seen_marks import SeenMarks
    from console.site import PageRequest
    from deltaloom.streams import Partitions
    from service.alerts.deciding.policy import LoadedPolicy
    from service.storage.undelivered_store import StoredUndelivered

_SEARCHED: Final = 5000
"""Undelivered alerts that are searched for one, the newest ones of each partition."""


class AlertActions:
    """The answers of `api/alerts/ID/resend` and `api/alerts/ID/seen`.

    Args:
        client: client of the server, whose user may remove undelivered alerts.
        partitions: names of all partitions.
        alerts_file: destinations and routes; None without a file, so that nothing can be sent.
        looks: records who has acted.
        seen: marks of alerts.
        allowed: True if the operator allows actions.
    """

    def __init__(
        self,
        client: Redis,
        partitions: Partitions,
        alerts_file: LoadedPolicy | None,
        looks: Looks,
        seen: SeenMarks,
        *,
        allowed: bool,
    ) -> None:
        self._undelivered = AllUndelivered(client, partitions)
        self._destinations = None if alerts_file is None else FileDestinations(alerts_file)
        self._looks = looks
        self._seen = seen
        self._allowed = allowed
        self._sending: set[str] = set()
        """Undelivered alerts that are being sent, by their ids."""

    async def resend(self, page: PageRequest) -> dict[str, Any]:
        """Send an undelivered alert once, and remove it if it is confirmed.

        Raises:
            ConsoleError: actions are not allowed, or there is no such alert or destination.
        """
        self._check()
        destination = (page.body or {}).get("destination")
        if not isinstance(destination, str) or not destination:
            raise bad_request('send {"destination": "…"}')
        if self._destinations is None:
            raise not_found("the console has no alerts file: start it with --config alerts.toml")
        stored = await self._find(page.name, destination)
        if stored.id in self._sending:
            raise ConsoleError(HTTPStatus.CONFLICT, "this alert is being sent already")
        self._sending.add(stored.id)
        try:
            await self._record(page, f"console resend {page.name}")
            with unavailable_if_away():
                problem = await send_again(self._undelivered, self._destinations, stored.undelivered, None)
                if problem is None:
                    await self._undelivered.drop(stored.id)
        except DestinationError as error:  # such as a secret that has gone
            raise ConsoleError(HTTPStatus.CONFLICT, str(error)) from None
        finally:
            self._sending.discard(stored.id)
        logs.logger().info(
            "alert sent again", alert=page.name, destination=destination, delivered=problem is None
        )
        return {"outcome": "undelivered" if problem else "delivered", "answer": problem or "delivered"}

    async def mark_seen(self, page: PageRequest) -> dict[str, Any]:
        """Mark an alert as seen by the visitor.

        Raises:
            ConsoleError: actions are not allowed.
        """
        self._check()
        if not page.name.isprintable() or len(page.name) > 100:  # noqa: PLR2004 - ids have 41 characters
            raise bad_request("this is no id of an alert")
        await self._record(page, self._seen.look_of(page.name))
        return self._seen.set(page.name, name_of(page.visitor), round(time.time() * 1000))

    async def close(self) -> None:
        """Close the connections to destinations."""
        if self._destinations is not None:
            await self._destinations.aclose()

    def _check(self) -> None:
        if not self._allowed:
            raise ConsoleError(
                HTTPStatus.FORBIDDEN, "this console only shows: start it with --allow-actions to act"
            )

    async def _record(self, page: PageRequest, what: str) -> None:
        if self._looks.are_recorded:
            await self._looks.add(page.visitor, what)

    async def _find(self, alert_id: str, destination: str) -> StoredUndelivered:
        """Return the undelivered alert of a destination.

        Raises:
            ConsoleError: there is none.
        """
        with unavailable_if_away():
            for stored in await self._undelivered.newest(_SEARCHED, destination):
                try:
                    alert = parse_alert(stored.undelivered.alert or "").alert
                except NotAnAlertError:
                    continue
                if alert.id == alert_id:
                    return stored
        raise not_found("this alert is not among the undelivered ones of this destination (any more)")
