"""The page of alerts: the newest ones, and where each went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from console.alert_rows import alert_in, alert_json, deliveries_of
from console.newest_entries import cursor_of, newest_entries, replies_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

    from console.queries import Query
    from console.seen_marks import SeenMarks
    from console.site import PageRequest
    from console.text_access import TextAccess
    from deltaloom.messages import Delivery, ModerationAlert
    from deltaloom.streams import StreamNames

_SCANNED: Final = 5000
"""Maximum alerts that one request reads to find those that fit."""
_AT_ONCE: Final = 500

_OUTCOMES: Final = ("delivered", "undelivered", "pending")


class AlertFilter(NamedTuple):
    """The alerts that are wanted; None for any."""

    severity: str | None = None
    category: str | None = None
    type: str | None = None
    destination: str | None = None
    outcome: str | None = None
    model: str | None = None
    tenant: str | None = None
    provider: str | None = None

    @classmethod
    def of(cls, query: Query) -> AlertFilter:
        """Return the filter of a request."""
        wanted = cls(*(query.text(name) for name in cls._fields))
        return wanted._replace(outcome=query.one_of("outcome", _OUTCOMES))

    def fits(self, alert: ModerationAlert, deliveries: Sequence[Delivery]) -> bool:
        """Return whether an alert is wanted."""
        about = {
            "severity": (deliveries[-1].severity if deliveries else None) or alert.severity,
            "category": deliveries[-1].category if deliveries else None,
            "type": alert.type,
            "model": alert.model,
            "tenant": alert.tenant,
            "provider": alert.provider,
        }
        if any(
            value is not None and about.get(name, value) != value for name, value in self._asdict().items()
        ):
            return False
        at = [each for each in deliveries if self.destination in {None, each.destination}]
        if self.outcome == "pending":
            return not at
        if self.destination is not None and not at:
            return False
        if self.outcome is None:
            return True
        return any((each.outcome == "delivered") == (self.outcome == "delivered") for each in at)


PARAMETERS: Final = (*AlertFilter._fields, "before", "limit", "texts")


class AlertsPage:
    """The answers of `api/alerts`.

    Args:
        client: client of the server.
        partitions: names of all partitions.
        texts: decides who sees texts.
        seen: marks of alerts.
    """

    def __init__(
        self, client: Redis, partitions: Sequence[StreamNames], texts: TextAccess, seen: SeenMarks
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._texts = texts
        self._seen = seen

    async def answer(self, page: PageRequest) -> dict[str, Any]:
        """Return alerts, the newest first."""
        wanted = AlertFilter.of(page.query)
        before = cursor_of(page.query.text("before"))
        limit = page.query.number("limit", 50, 1, 200)
        policy = await self._texts.policy(page, "alerts")
        deliveries, are_all = await deliveries_of(self._client, self._partitions)
        found, cursor = await self._found(wanted, deliveries, before, limit)
        unknown = (
            []
            if are_all
            else ["Only the newest deliveries were read: what became of earlier alerts is not shown."]
        )
        return {
            "at": round(time.time() * 1000),
            "alerts": [alert_json(each, deliveries.get(each.id, ()), policy, self._seen) for each in found],
            "next": cursor,
            "undelivered": await self._undelivered(),
            "unknown": unknown,
        }

    async def _found(
        self,
        wanted: AlertFilter,
        deliveries: Mapping[str, Sequence[Delivery]],
        before: str | None,
        limit: int,
    ) -> tuple[list[ModerationAlert], str | None]:
        """Return the newest alerts that fit, and the cursor of the next page."""
        found: list[ModerationAlert] = []
        scanned = 0
        while True:
            entries, following = await newest_entries(
                self._client, self._partitions, lambda names: names.alerts, _AT_ONCE, before
            )
            for number, entry in enumerate(entries):
                alert = alert_in(entry)
                if alert is not None and wanted.fits(alert, deliveries.get(alert.id, ())):
                    found.append(alert)
                is_last_of_id = number + 1 == len(entries) or entries[number + 1].id < entry.id
                if len(found) >= limit and is_last_of_id:
                    has_more = number + 1 < len(entries) or following is not None
                    return found, str(entry.id) if has_more else None
            scanned += len(entries)
            if following is None or scanned >= _SCANNED:
                return found, following
            before = following

    async def _undelivered(self) -> int:
        """Return the number of undelivered alerts."""
        pipeline = self._client.pipeline(transaction=False)
        for names in self._partitions:
            pipeline.xlen(names.undelivered)
        return sum(length or 0 for length in await replies_of(pipeline))
