"""Collect what Redis knows of a response: the worker's state, finished items, and the output stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from deltaloom.messages import AssembledText, ModerationAlert
from handlers.core.assembly import assemble
from handlers.core.context import context_of
from handlers.core.effects import CONTEXT_NAMES
from handlers.core.identity import StreamKey
from handlers.core.outputs import time_of
from service.alert_parsing import NotAnAlertError, parse_alert
from service.keys import Keys
from service.storage.pages import backwards
from service.storage.records import registers_of
from service.storage.store import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames
    from handlers.core.state import ResponseState
    from service.settings import Settings

ITEMS_LOOKED_FOR = 64
"""Output items that are looked up by number when the marker that names them has expired."""

TEXTS_LOOKED_THROUGH = 10_000
"""Maximum entries of `assembled`, and of `alerts`, newest first, that are searched for an id."""

OUTPUTS_LOOKED_THROUGH = 100_000
"""Maximum entries of `assembled`, and of `alerts`, newest first, that are searched for a provider's id.

There is no index: it would cost each response commands and memory, for a look-up that is rare.
"""

OPEN_LOOKED_THROUGH = 10_000
"""Maximum open responses, latest first, that are searched for a provider's id."""

RESPONSES_LOOKED_THROUGH = 200
"""Maximum responses with open parts, latest first, that are searched for an item id."""

_UPSTREAM_FIELD = "ctx:upstream_response_id"
"""Field of a state with the provider's id."""

_CONTEXT = ("model", "tenant", *(name for name in CONTEXT_NAMES if name not in {"model", "tenant"}))


@dataclass(frozen=True)
class OpenPart:
    """An unfinished text."""

    kind: str
    output_index: int
    content_index: int
    item_id: str | None
    events: int
    """Number of fragments and closing events received so far."""
    text_bytes: int
    """Size in bytes of the text so far, in UTF-8."""
    since: datetime


@dataclass
class Known:
    """The knowledge about a response, or about an item without a response id."""

    id: str
    context: dict[str, str] = field(default_factory=dict)
    texts: list[AssembledText] = field(default_factory=list)
    open: list[OpenPart] = field(default_factory=list)
    alerts: list[ModerationAlert] = field(default_factory=list)
    """Alerts, if the response was found by its provider's id, or has nothing else."""

    def complete(self) -> None:
        """Bring texts and parts into order, and learn the context from texts and alerts."""
        _with_alerts(_in_order(self), self.alerts)

    def __bool__(self) -> bool:
        return bool(self.texts or self.open or self.alerts)

    def to_json(self) -> str:
        """Return a JSON object: id, context, texts (each an AssembledText), open, alerts."""
        return TypeAdapter(Known).dump_json(self).decode()


async def known_in(partitions: Partitions, client: Redis, settings: Settings, wanted: str) -> list[Known]:
    """Search all partitions by a response's id, else by an item's, else by a provider's; return all found.

    A response is in the partition of its id. An item is in its response's partition, which may be any.
    Several responses may have the same provider's id: gateways repeat ids, and a recording may be published
    twice.
    """
    likely = partitions.of(wanted)
    ordered = (likely, *(each for each in partitions.all if each != likely))
    for names in ordered:
        known = await Knowledge(client, names, settings).of(wanted)
        if known:
            return [known]
    return [
        known for names in ordered for known in await Knowledge(client, names, settings).of_provider(wanted)
    ]


class Knowledge:
    """A read-only search in one partition."""

    def __init__(self, client: Redis, names: StreamNames, settings: Settings) -> None:
        self._client = client
        self._names = names
        self._keys = Keys(names)
        self._storage = RedisStorage(client, self._keys, settings)

    async def of(self, wanted: str) -> Known:
        """Search by a response's id, else by an item's; the result may be empty."""
        return (
            await self._named(wanted)
            or await self._written(wanted)
            or await self._open_with_item(wanted)
            or await self._alerted(wanted)
        )

    async def of_provider(self, upstream_id: str) -> list[Known]:
        """Search by the provider's id of a response; return all responses that have it, the newest first."""
        alerts: dict[str, list[ModerationAlert]] = {}
        for data in await self._outputs_with(self._names.alerts, upstream_id):
            alert = alert_in(data)
            if alert is not None and alert.upstream_response_id == upstream_id and alert.response_id:
                alerts.setdefault(alert.response_id, []).insert(0, alert)
        found: dict[str, list[AssembledText]] = {
            name: [] for name in await self._open_with_upstream(upstream_id)
        }
        for data in await self._outputs_with(self._names.assembled, upstream_id):
            text = text_in(data)
            if text is not None and text.upstream_response_id == upstream_id and text.response_id:
                found.setdefault(text.response_id, []).append(text)
        responses = []
        for name in dict.fromkeys((*found, *alerts)):
            named = await self._named(name)
            written = _in_order(Known(name, texts=found.get(name, [])))
            known = named or written or await self._written(name) or named
            responses.append(_with_alerts(known, alerts.get(name, [])))
        return responses

    async def _alerted(self, wanted: str) -> Known:
        """Search the alerts for a response without a text."""
        found: list[ModerationAlert] = []
        looked_through = 0
        async for _, fields in backwards(self._client, self._names.alerts):
            looked_through += 1
            if looked_through > TEXTS_LOOKED_THROUGH:
                break
            if fields.get(b"response_id") == wanted.encode("utf-8", "replace"):
                alert = alert_in(fields.get(b"__data__", b""))
                found[:0] = [] if alert is None else [alert]
        return _with_alerts(Known(wanted), found)

    async def _outputs_with(self, stream: str, upstream_id: str) -> list[bytes]:
        """Return the messages of an output that may have a provider's id, the newest first."""
        # Most ids stand in JSON as they are, so that few messages are parsed.
        is_plain = upstream_id.isascii() and upstream_id.isprintable() and not {'"', "\\"} & set(upstream_id)
        needle = upstream_id.encode() if is_plain else b""
        found: list[bytes] = []
        looked_through = 0
        async for _, fields in backwards(self._client, stream):
            looked_through += 1
            if looked_through > OUTPUTS_LOOKED_THROUGH:
                break
            data = fields.get(b"__data__", b"")
            if needle in data:
                found.append(data)
        return found

    async def _open_with_upstream(self, upstream_id: str) -> list[str]:
        """Return the ids of open responses with a provider's id, the latest first."""
        members: Any = await self._client.zrevrange(self._keys.open, 0, OPEN_LOOKED_THROUGH - 1)
        keys = [StreamKey.parse(member.decode(errors="replace")) for member in members]
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(self._keys.state(key), _UPSTREAM_FIELD)
        values = await pipeline.execute() if keys else []
        return [
            key.value
            for key, value in zip(keys, values, strict=True)
            if value is not None
            and context_of(registers_of({_UPSTREAM_FIELD: value})).upstream_response_id == upstream_id
        ]

    async def _named(self, name: str) -> Known:
        """Search the worker's state and the finished items, whose keys contain the name."""
        known = Known(name)
        indexes = set(range(ITEMS_LOOKED_FOR))
        keys = [StreamKey("response", name), StreamKey("item", name)]
        indexes.update(part.output_index for part in await self._storage.marked(keys))
        for loaded in await self._storage.load(keys):
            state = loaded.state
            indexes.update(part.output_index for part in state.finished_parts)
            known.open.extend(_open_parts(state))
            known.context.update(_context_fields(dict(context_of(state.registers).pairs())))
        pipeline = self._client.pipeline(transaction=False)
        for index in sorted(indexes):
            pipeline.hvals(self._names.item(name, index))
        for values in await pipeline.execute():
            known.texts.extend(text for value in values if (text := text_in(value)) is not None)
        return _in_order(known)

    async def _written(self, wanted: str) -> Known:
        """Search the output stream: for an item of a response, or when the keys have expired."""
        known = Known(wanted)
        looked_through = 0
        async for _, fields in backwards(self._client, self._names.assembled):
            looked_through += 1
            if looked_through > TEXTS_LOOKED_THROUGH:
                break
            text = text_in(fields.get(b"__data__", b""))
            if text is None:
                continue
            if text.response_id not in (None, wanted) and text.item_id == wanted:
                return await self._named(text.response_id or wanted) or _in_order(
                    Known(text.response_id or wanted, texts=[text])
                )
            if wanted in (text.response_id, text.item_id):
                known.texts.append(text)
        return _in_order(known)

    async def _open_with_item(self, item_id: str) -> Known | None:
        """Search the open parts for an item id."""
        members: Any = await self._client.zrevrange(self._keys.open, 0, RESPONSES_LOOKED_THROUGH - 1)
        if not members:
            return None
        keys = [StreamKey.parse(member.decode(errors="replace")) for member in members]
        for loaded in await self._storage.load(keys):
            state = loaded.state
            if any(log.item_id == item_id for log in state.open_parts.values()):
                return await self._named(state.stream_key.value)
        return None


def text_in(data: bytes) -> AssembledText | None:
    """Return the text in an entry, an item or a record; None if another program or version wrote it."""
    try:
        return AssembledText.model_validate_json(data)
    except ValueError:  # pydantic's error
        return None


def _with_alerts(known: Known, alerts: list[ModerationAlert]) -> Known:
    known.alerts = alerts
    for alert in alerts:
        known.context = {**_context_fields(alert.model_dump()), **known.context}
    return known


def alert_in(data: bytes) -> ModerationAlert | None:
    """Return the alert in an entry or a record; None if another program or version wrote it."""
    try:
        return parse_alert(data).alert
    except NotAnAlertError:
        return None


def _open_parts(state: ResponseState) -> list[OpenPart]:
    return [
        OpenPart(
            kind=part.kind,
            output_index=part.output_index,
            content_index=part.content_index,
            item_id=log.item_id,
            events=len(log.arrivals),
            text_bytes=len(assemble(log.fragments).text.encode("utf-8", "surrogatepass")),
            since=time_of(log.began.entry.ms),
        )
        for part, log in state.open_parts.items()
    ]


def _context_fields(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name in _CONTEXT if (value := values.get(name)) is not None}


def _in_order(known: Known) -> Known:
    known.texts.sort(key=lambda text: (text.output_index, text.kind, text.content_index))
    known.open.sort(key=lambda part: (part.output_index, part.kind, part.content_index))
    for text in known.texts:
        known.context = {**_context_fields(text.model_dump()), **known.context}
    return known
