"""Erase what Redis has of a response, a tenant, a person or a reference, in all partitions.

Theory of operation:

1. Tenants, persons and references lead to responses: a delivery names only its response, and an early alert
   may lack a value that came later. So a first pass collects the responses of the subject, and a second one
   all entries, items, states and logs of these responses. A subject that is a response needs no first pass.
2. Data that names another value of the subject's kind stays, even if it shares the response's id. For
   example, an alert of tenant `b` stays if tenant `a` is erased.
3. State and logs stay while a response is open or waits to be settled: without them, the worker would write
   the rest of a text as if it were the whole one. `erase` returns the ids of these responses.
4. The input is left alone, since `XDEL` there would look like a loss. The service trims entries of the input
   once all groups have acknowledged them.

Each pass reads all entries of the other streams, and scans all keys under the prefix.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.asyncio.cluster import RedisCluster

from handlers.core.context import context_of
from handlers.core.identity import StreamKey
from service.field_json import fields_of
from service.keys import LOG, Keys
from service.storage import pages, scripts
from service.storage.records import REGISTERS, registers_of
from service.storage.removal import AT_ONCE, Removal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames

MESSAGES: Final = ("assembled", "alerts", "undelivered", "deliveries")
"""Streams whose entries have a JSON message in `__data__`, by name without prefix."""

LETTERS: Final = "dead-letters"
"""Stream of dead letters, by name without prefix. Each has the JSON of an original entry, maybe cut."""

PLACES: Final = (*MESSAGES, LETTERS, "item", "state", "log")
"""Kinds of places that an erasure reaches: streams, and kinds of keys."""

_NAMES: Final = ("response_id", "tenant", "safety_identifier", "reference")
_OF_STATE: Final = tuple(
    field
    for field, register in REGISTERS.items()
    if register.name in _NAMES and register.name != "response_id"
)
"""Fields of a state with its tenant, safety identifier and reference, from the producer or learned."""
_PARTS_OF_LOG: Final = 3
"""Number of values, each after a colon, that follow the stream key in the key of a log."""


class Owner(NamedTuple):
    """The values in a message or a state by which a subject may be given; None for a missing one.

    The `response_id` of a state or a log is the item id if the producer gave no response id.
    """

    response_id: str | None = None
    tenant: str | None = None
    safety_identifier: str | None = None
    reference: str | None = None


class SentAlert(NamedTuple):
    """An alert that a destination has accepted."""

    id: str
    """Id of the delivery."""
    destination: str
    privacy: str | None
    """Share of the text that was sent: `full`, `excerpt` or `none`; None if that is unknown."""
    at: str
    """`delivered_at` of the delivery, as its message has it; `raised_at` if that is missing."""


class FoundPlace(NamedTuple):
    """A place with data that may be erased: an entry, a field of an item, a state, or a log."""

    place: str
    """A name in `PLACES`."""
    names: StreamNames
    """Names of its partition."""
    key: str
    """Key of the stream, item, state or log."""
    within: bytes
    """Id of the entry, or field of the item; empty for a state or a log, which is a whole key."""
    owner: Owner
    message: tuple[str, str] | None = None
    """`source` (else the prefix) and `id` of the message; None for a dead letter, a state or a log."""
    sent: SentAlert | None = None
    """Alert of an entry of `deliveries`, if the destination has accepted it; else None."""


class Persistence(NamedTuple):
    """State of the files in which the servers save their data, and in which erased data may remain."""

    append_only: bool
    """True if any primary writes an append-only file."""
    saved_at: datetime | None
    """Time of the newest RDB file of any primary; None if no primary names a time.

    A server that has written no file since its start counts with the time of its start.
    """


class SubjectErasure:
    """Finds and erases the data of one subject.

    Args:
        client: client of the server or cluster.
        partitions: names of the partitions.
        name: the field of `Owner` by which the subject is given.
        value: the value of the subject in that field.
    """

    def __init__(self, client: Redis, partitions: Partitions, name: str, value: str) -> None:
        self._client = client
        self._partitions = partitions
        self._name = name
        self._value = value
        self._removal = Removal(client, partitions.prefix)
        plain = value.isascii() and value.isprintable() and not {'"', "\\"} & set(value)
        self._needle = value.encode() if plain else b""
        """Bytes that every JSON text with the value contains; empty if JSON may escape the value."""
        self._is_prepared = False
        self._erase_state = scripts.Script(client, "erase_state")

    async def responses(self) -> set[str]:
        """Return the ids of the subject's responses.

        If the subject is a response, return its id without a look at Redis. Else return the ids in all
        entries, items and states that have the subject's value. The item id of a state counts if it has no
        response id.
        """
        if self._name == "response_id":
            return {self._value}
        owners = [found.owner async for found in self._all(frozenset()) if self._concerns(found.owner, ())]
        return {owner.response_id for owner in owners if owner.response_id is not None}

    async def find(self, responses: Collection[str]) -> list[FoundPlace]:
        """Return the places with data of the subject, including states and logs of open responses.

        A place belongs to the subject if it has the subject's value in the subject's field of `Owner`. A
        place without any value in this field belongs to the subject if its response id is in `responses`.
        """
        return [found async for found in self._all(responses) if self._concerns(found.owner, responses)]

    async def erase(self, found: Iterable[FoundPlace]) -> tuple[Counter[str], list[str]]:
        """Erase the places that `find` returned, and acknowledge the erased entries in all groups.

        States and logs of responses that are open, or wait to be settled, stay.

        Returns:
            The number of erased places for each name in `PLACES`, without those that no longer existed; and
            the sorted ids of the responses whose states or logs stay.
        """
        counts: Counter[str] = Counter(dict.fromkeys(PLACES, 0))
        still_open: set[str] = set()
        streams: dict[str, list[FoundPlace]] = {}
        for each in found:
            if each.place in (*MESSAGES, LETTERS):
                streams.setdefault(each.key, []).append(each)
            elif each.place == "item":
                counts["item"] += int(await self._client.hdel(_raw(each.key), each.within))
            else:
                gone = await self._erase_if_over(each)
                counts[each.place] += gone > 0
                if gone < 0:
                    still_open.add(str(each.owner.response_id))
        for stream, some in streams.items():
            groups = [info["name"] for info in await pages.groups_of(self._client, stream)]
            for first in range(0, len(some), AT_ONCE):
                ids = [each.within for each in some[first : first + AT_ONCE]]
                counts[some[0].place] += int(await self._client.xdel(stream, *ids))
                for group in groups:  # nobody can read them any more
                    await self._client.xack(stream, group, *ids)
        return counts, sorted(still_open)

    async def persistence(self) -> Persistence:
        """Return the persistence of all primaries together; replicas are not asked."""
        client: Any = self._client
        where = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}
        reply = await client.info("persistence", **where)
        infos = [reply] if "aof_enabled" in reply else list(reply.values())
        saved = max(int(info["rdb_last_save_time"]) for info in infos)
        return Persistence(
            any(int(info["aof_enabled"]) for info in infos),
            datetime.fromtimestamp(saved, UTC) if saved else None,
        )

    def _concerns(self, owner: Owner, responses: Collection[str]) -> bool:
        own = getattr(owner, self._name)
        if own is not None:
            return bool(own == self._value)
        return owner.response_id in responses

    async def _all(self, responses: Collection[str]) -> AsyncIterator[FoundPlace]:
        """Yield the places that may belong to the subject or the responses; the caller checks the owners.

        A place may come twice. The first call also scans all keys for nested deployments, whose data is left
        out.
        """
        if not self._is_prepared:
            await self._removal.count()  # finds deployments whose keys look like ours
            self._is_prepared = True
        for names in self._partitions.all:
            for place in MESSAGES:
                async for found in self._messages(place, names, responses):
                    yield found
            async for found in self._letters(names, responses):
                yield found
        async for found in self._keys(responses):
            yield found

    async def _messages(
        self, place: str, names: StreamNames, responses: Collection[str]
    ) -> AsyncIterator[FoundPlace]:
        stream = names.name(place)
        async for entry_id, fields in pages.forwards(self._client, stream):
            data = fields.get(b"__data__", b"")
            plain = fields.get(b"response_id", b"").decode("utf-8", "replace")
            if self._needle in data or not plain or plain in responses or plain == self._value:
                message = _object_in(data)
                owner = owner_in(message)
                if owner.response_id is None and plain:
                    owner = owner._replace(response_id=plain)
                yield FoundPlace(
                    *(place, names, stream, entry_id.encode(), owner),
                    _key_of(message, names.prefix),
                    _sent(message) if place == "deliveries" else None,
                )

    async def _letters(self, names: StreamNames, responses: Collection[str]) -> AsyncIterator[FoundPlace]:
        stream = names.dead_letters
        async for entry_id, fields in pages.forwards(self._client, stream):
            text = fields.get(b"entry", b"").decode("utf-8", "replace")
            owner = _owner_in_letter(text, {"response_id": responses, self._name: (self._value,)})
            if owner != Owner():
                yield FoundPlace(LETTERS, names, stream, entry_id.encode(), owner)

    async def _keys(self, responses: Collection[str]) -> AsyncIterator[FoundPlace]:
        """Yield the places in items, states and logs that may belong to the subject or the responses.

        Each field of an item is a place; a state or a log is one as a whole. A place may come twice.
        """
        by_tag = {names.name(""): names for names in self._partitions.all}
        some: list[tuple[str, str]] = []
        async for key in self._removal.keys():
            kind = self._removal.kind_of(key)
            if kind in {"item", "state", "log"}:
                some.append((kind, key))
            if len(some) == AT_ONCE:
                async for found in self._values(some, by_tag, responses):
                    yield found
                some = []
        async for found in self._values(some, by_tag, responses):
            yield found

    async def _values(
        self, keys: Sequence[tuple[str, str]], by_tag: Mapping[str, StreamNames], responses: Collection[str]
    ) -> AsyncIterator[FoundPlace]:
        wanted: list[tuple[str, str, StreamNames, str]] = []
        for kind, key in keys:
            tag = next((tag for tag in by_tag if key.startswith(tag)), None)
            if tag is None:
                continue
            response = _response_in(kind, key.removeprefix(tag))
            by_value = self._name != "response_id" and kind != "log"
            if by_value or response in responses:
                wanted.append((kind, key, by_tag[tag], response))
        pipeline = self._client.pipeline(transaction=False)
        for kind, key, _, _ in wanted:
            _read(pipeline, kind, key)
        replies = await pipeline.execute() if wanted else []
        for (kind, key, names, response), reply in zip(wanted, replies, strict=True):
            if kind != "item":
                context = registers_of(dict(zip(_OF_STATE, reply, strict=True))) if kind == "state" else {}
                values = context_of(context)
                owner = Owner(response, values.tenant, values.safety_identifier, values.reference)
                yield FoundPlace(kind, names, key, b"", owner)
                continue
            for field, data in reply.items():
                message = _object_in(data)
                yield FoundPlace(kind, names, key, field, owner_in(message), _key_of(message, names.prefix))

    async def _erase_if_over(self, found: FoundPlace) -> int:
        """Erase a state or a log, unless the response is open or waits to be settled.

        Return 1 if it was erased, 0 if it did not exist, -1 if it stays.
        """
        keys = Keys(found.names)
        name = _stream_key_in(found.place, found.key.removeprefix(found.names.name("")))
        of_response = [_raw(found.key), keys.open, keys.waiting]
        return int(await self._erase_state(keys=of_response, args=[_raw(name)]))


def _read(pipeline: Any, kind: str, key: str) -> None:
    """Add a command to a pipeline: read the fields of an item, or `_OF_STATE` of a state.

    Of a log, only its existence is read.
    """
    if kind == "item":
        pipeline.hgetall(_raw(key))
    elif kind == "state":
        pipeline.hmget(_raw(key), _OF_STATE)
    else:
        pipeline.exists(_raw(key))


def _raw(name: str) -> Any:
    """Return the bytes of a key, in which lone surrogates stand for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def owner_in(message: Mapping[str, Any]) -> Owner:
    """Return the owner that a message names. A value that is empty or no string counts as missing."""
    values = (message.get(name) for name in _NAMES)
    return Owner(*(value if isinstance(value, str) and value else None for value in values))


def _object_in(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty one if the data is anything else."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _key_of(message: Mapping[str, Any], prefix: str) -> tuple[str, str] | None:
    source, name = message.get("source") or prefix, message.get("id")
    return (source, name) if isinstance(source, str) and isinstance(name, str) and name else None


def _sent(message: Mapping[str, Any]) -> SentAlert | None:
    """Return the alert of a message of `deliveries` if its outcome is `delivered`, else None."""
    if message.get("outcome") != "delivered":
        return None
    return SentAlert(
        str(message.get("id")),
        str(message.get("destination")),
        message.get("privacy"),
        str(message.get("delivered_at") or message.get("raised_at")),
    )


def sent_in(data: bytes) -> SentAlert | None:
    """Return the alert of a delivery, given as JSON; None if it was not delivered, or is no JSON object."""
    return _sent(_object_in(data))


def _stream_key_in(kind: str, name: str) -> str:
    """Return the text of the stream key, such as `response:resp_1`, in the name of a state or a log.

    `name` is the key without prefix and hash tag: `state:<stream key>` or `log:<stream key>:<part>`.
    """
    if kind == "state":
        return name.removeprefix("state:")
    return name.removeprefix(LOG).rsplit(":", _PARTS_OF_LOG)[0]


def _response_in(kind: str, name: str) -> str:
    """Return the response id in the name of an item, a state or a log; without a response id, the item id.

    `name` is the key without prefix and hash tag.
    """
    if kind == "item":
        return name.removeprefix("item:").rpartition(":")[0]
    return StreamKey.parse(_stream_key_in(kind, name)).value


def _owner_in_letter(entry: str, wanted: Mapping[str, Collection[str]]) -> Owner:
    """Return the owner that the original entry in a dead letter names, in its metadata or its events.

    `wanted` has the values to look for, by field of `Owner`. If a field has several values, the first one in
    `wanted` counts; if none is, the first one counts. An entry that is cut or no JSON is searched as text.
    """
    try:
        fields = {name: value.decode("utf-8", "replace") for name, value in fields_of(entry).items()}
    except (ValueError, RecursionError):
        fields = {"": entry}
    named: dict[str, list[str]] = {name: [] for name in _NAMES}
    for name, value in fields.items():
        if name in named:
            named[name].append(value)
        _collect(value, named)
    return Owner(
        **{
            name: next((value for value in named[name] if value in wanted.get(name, ())), None)
            or (named[name][0] if named[name] else None)
            for name in _NAMES
        }
    )


def _collect(text: str, named: dict[str, list[str]]) -> None:
    """Add the values in an event's JSON, at any depth, to the lists of their names in `named`.

    The `id` of a `response` object counts as `response_id`. Other names, and values that are no strings, are
    ignored. Text that is no JSON is searched by patterns.
    """
    try:
        rest: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        named["response_id"] += map(_unescaped, _RESPONSE_ID.findall(text))
        for name, value in _NAMED.findall(text):
            named[name].append(_unescaped(value))
        return
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest += value
        elif isinstance(value, dict):
            response = value.get("response")
            if isinstance(response, dict) and isinstance(response.get("id"), str):
                named["response_id"].append(response["id"])
            for name, inner in value.items():
                if name in named and isinstance(inner, str) and inner:
                    named[name].append(inner)
                else:
                    rest.append(inner)


_ESCAPED: Final = re.compile(r"\\{1,2}u([0-9a-fA-F]{4})")
_VALUE: Final = r'\\*"((?:[^"\\]|\\{1,2}u[0-9a-fA-F]{4})+)\\*"'
_NAMED: Final = re.compile(rf'"({"|".join(_NAMES)})\\*"\s*:\s*{_VALUE}')
"""Pattern of a name of `_NAMES` and its value in JSON, also if a JSON string has the JSON."""
_RESPONSE_ID: Final = re.compile(rf'"response\\*"\s*:\s*\{{\s*\\*"id\\*"\s*:\s*{_VALUE}')
"""Pattern of an `id` that comes first in a `response` object, also if a JSON string has the JSON."""


def _unescaped(value: str) -> str:
    """Return a value that `_VALUE` has found, with its escapes of UTF-16 units decoded.

    Two escapes that stand for one character beyond U+FFFF become this character; a lone surrogate becomes
    U+FFFD.
    """
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
