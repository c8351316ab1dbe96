"""The page of one response: all that Redis, and what this console has seen, tell of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from console.alert_rows import alert_in, alert_json, deliveries_of, url_of
from console.console_errors import not_found
from console.letter_rows import letter_json, response_of
from console.newest_entries import newest_entries
from console.response_parts import (
    CONTEXT,
    context_of,
    cut_parts,
    finished_part,
    open_part,
    seen_parts,
    state_of,
    timeline_of,
)
from console.short_fields import LONGEST, with_short_fields
from deltaloom.messages import AssembledText
from handlers.core.identity import StreamKey
from service.cli.all_letters import AllLetters
from service.cli.knowledge import Known, known_in
from service.handler_packages import disabled_kinds
from service.keys import Keys
from service.storage.client.availability import unavailable_if_away
from service.storage.store import RedisStorage
from service.visible import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from console.archive_reading import ArchiveReader
    from console.console_settings import ConsoleSettings
    from console.live_reading import LiveReader
    from console.looks import Looks
    from console.seen_marks import SeenMarks
    from console.site import PageRequest
    from console.text_access import TextAccess
    from deltaloom.messages import ModerationAlert
    from handlers.core.identity import PartKey
    from handlers.core.part_log import PartLog

PARAMETERS: Final = ("texts",)
_ALERTS_READ: Final = 5000
_ALERTS_SHOWN: Final = 200
_LETTERS_READ: Final = 1000
_SEARCHES: Final = 2
"""Searches for a response that run at the same time: each may read thousands of entries."""


class ResponsePage:
    """The answers of `api/responses/ID`.

    Args:
        client: client of the server.
        settings: the settings.
        live: what this console has seen lately.
        archive: the archive; None without one.
        texts: decides who sees texts.
        looks: records who looks.
        seen: marks of alerts.
    """

    def __init__(
        self,
        client: Redis,
        settings: ConsoleSettings,
        live: LiveReader,
        archive: ArchiveReader | None,
        texts: TextAccess,
        looks: Looks,
        seen: SeenMarks,
    ) -> None:
        self._client = client
        self._settings = settings
        self._live = live
        self._archive = archive
        self._texts = texts
        self._looks = looks
        self._seen = seen
        self._searching = asyncio.Semaphore(_SEARCHES)

    async def answer(self, page: PageRequest) -> dict[str, Any]:
        """Return a response.

        Raises:
            ConsoleError: nothing is known of it.
        """
        policy = await self._texts.policy(page, page.name)
        if self._looks.are_recorded:
            await self._looks.add_once(page.visitor, f"console response {page.name}")
        async with self._searching:
            known = await self._known(page.name)
            logs = await self._open_logs(known.id)
            alerts = await self._alerts(known)
            deliveries, are_all = await deliveries_of(self._client, self._settings.names.all)
            letters = await self._letters(known.id)
        live = self._live.responses.get(known.id)
        if not (known or logs or alerts or letters or live):
            raise not_found(
                "nothing is known of this response: it was not published under this id, has nothing that is "
                "rebuilt, or is older than what Redis keeps"
            )
        contradicted = {
            (each.output_index, each.content_index, each.kind)
            for each in alerts
            if each.type == "deltaloom.text.contradicted"
        }
        parts = [finished_part(each, policy, contradicted) for each in known.texts]
        written = {(each.output_index, each.content_index, each.kind) for each in known.texts}
        parts += [
            open_part(part, log, policy)
            for part, log in logs.items()
            if (part.output_index, part.content_index, part.kind) not in written
        ]
        parts += seen_parts(live, {(p["output_index"], p["content_index"], p["kind"]) for p in parts}, policy)
        parts.sort(key=lambda part: (part["output_index"], part["content_index"], part["kind"]))
        cut_parts(parts)
        timeline, is_cut = timeline_of(live, parts)
        context = {**context_of(alerts), **(live.told if live else {}), **known.context}
        return {
            "at": round(time.time() * 1000),
            "id": known.id,
            "source": self._settings.prefix,
            **{name: policy.name(context.get(name)) for name in CONTEXT},
            "reference_url": url_of(policy.name(context.get("reference"))),
            "trace_url": self._trace_url(context.get("traceparent")),
            **state_of(known, alerts, live, parts, policy),
            "late": None,
            "duplicates": sum(part["duplicate_count"] or 0 for part in parts),
            "parts": parts,
            "timeline": timeline,
            "timeline_cut": is_cut,
            "alerts": [alert_json(each, deliveries.get(each.id, ()), policy, self._seen) for each in alerts],
            "dead_letters": [letter_json(each, policy) for each in letters],
            "unknown": self._unknown(timeline, parts, alerts, are_all=are_all),
        }

    async def _known(self, wanted: str) -> Known:
        """Return what Redis has of a response, else what the archive has of its texts, with short fields."""
        with unavailable_if_away():
            found = await known_in(self._settings.names, self._client, self._settings, wanted)
        known = found[0] if found else Known(wanted)
        if not found and self._archive is not None:
            for each in await self._archive.of_response(wanted):
                if each.record.family == "text":
                    known.texts.append(AssembledText.model_validate_json(each.record.body))
                    known.id = each.record.response_id or wanted
        known.texts = [with_short_fields(each) for each in known.texts]
        known.alerts = [with_short_fields(each) for each in known.alerts]
        known.context = {name: shortened(value, LONGEST + 1) for name, value in known.context.items()}
        return known

    async def _open_logs(self, name: str) -> dict[PartKey, PartLog]:
        """Return the logs of the parts that are not finished."""
        names = self._settings.names.of(name)
        storage = RedisStorage(self._client, Keys(names), self._settings)
        keys = [StreamKey("response", name), StreamKey("item", name)]
        return {
            part: log for loaded in await storage.load(keys) for part, log in loaded.state.open_parts.items()
        }

    async def _alerts(self, known: Known) -> list[ModerationAlert]:
        """Return the newest alerts of a response, oldest first."""
        name = known.id.encode("utf-8", "replace")
        page = await newest_entries(
            self._client, [self._settings.names.of(known.id)], lambda names: names.alerts, _ALERTS_READ
        )
        entries = [
            entry
            for entry in page.entries
            if name in {entry.fields.get(b"response_id"), entry.fields.get(b"item_id")}
        ]
        found = {alert.id: alert for entry in entries if (alert := alert_in(entry)) is not None}
        found |= {alert.id: alert for alert in known.alerts}
        return sorted(found.values(), key=lambda alert: alert.raised_at)[-_ALERTS_SHOWN:]

    async def _letters(self, name: str) -> list[Any]:
        found = []
        letters = AllLetters(self._client, self._settings.names)
        read = 0
        with unavailable_if_away():
            async for stored in letters.newest_first():
                read += 1
                if response_of(stored.letter.entry) == name:
                    found.append(stored)
                if read >= _LETTERS_READ or len(found) >= 20:  # noqa: PLR2004 - more do not help
                    break
        return found[::-1]

    def _trace_url(self, traceparent: str | None) -> str | None:
        trace_id = (traceparent or "").split("-")[1:2]
        if self._settings.console_trace_url is None or not trace_id or not trace_id[0].isalnum():
            return None
        return self._settings.console_trace_url.replace("{trace_id}", trace_id[0])

    def _unknown(
        self, timeline: Sequence[Any], parts: Sequence[Any], alerts: Sequence[Any], *, are_all: bool
    ) -> list[str]:
        """Return sentences about what is not known."""
        unknown = [
            "How many deltas came after their text was finished is counted for all responses together."
        ]
        if not timeline:
            unknown.append(
                "When each delta came: this console was not watching then, and workers do not keep it."
            )
        off = [
            kind for kind in disabled_kinds(self._settings.handlers) if all(p["kind"] != kind for p in parts)
        ]
        if off:
            unknown.append(
                f"Texts of the kinds {', '.join(off)}: workers with these settings do not rebuild them."
            )
        if alerts and not are_all:
            unknown.append("Deliveries of earlier alerts: only the newest ones were read.")
        return unknown
