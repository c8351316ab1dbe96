"""Read responses, each with all of its open logs, in calls of a few megabytes.

A state and its open logs must be read in one script, or a text could lack its context. But only the state
says which logs are open. They are nearly always those of the parts that this process has sent, so one call
reads the states with these logs. If a response has other open logs, a second step reads the sizes of its open
logs, then the state and all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from handlers.core.identity import PartKey
from service.storage.client.availability import unavailable_if_away
from service.storage.records import named, open_fields, pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from redis.asyncio import Redis

    from handlers.core.identity import StreamKey
    from service.keys import Keys
    from service.storage.scripts import Script
    from service.storage.sent_cache import SentStates

_BYTES_AT_ONCE = 4 * 1024 * 1024
"""Approximate maximum bytes that a call reads; a single key may have more."""

_KEYS_AT_ONCE = 1000
"""Maximum keys that a call reads; it may read more if they are all of one response."""

_RESPONSES_AT_ONCE = 100
"""Maximum responses that are read in one call or pipeline."""

_PARTS_EXPECTED = 8
"""Maximum number of parts that this process has sent of a response, for their logs to be read along with its
state. If it has sent more, only the state is read, because most of these parts are finished."""


class Found(NamedTuple):
    """A response as stored."""

    state: Mapping[str, bytes]
    """The fields of its state; empty if it is not stored."""
    logs: Mapping[str, bytes | None]
    """The logs of its open parts, by the field of the part; None for a log that was missing."""


class Wanted(NamedTuple):
    """The keys to read for one response, with the bytes of their values."""

    stream_key: StreamKey
    state: str
    """The key of the response's state."""
    state_bytes: int
    """The bytes of all values in the state, without the names of its fields."""
    logs: Mapping[str, str]
    """The keys of the logs of its open parts, by the field of the part."""
    log_bytes: Sequence[int]
    """The bytes of each log, in the order of `logs`; 0 for a missing one."""


class ResponseLoader:
    """Reads the responses of a partition.

    Args:
        client: client of the server.
        script: load.lua.
        keys: keys of the partition.
    """

    def __init__(self, client: Redis, script: Script, keys: Keys) -> None:
        self._client = client
        self._script = script
        self._keys = keys

    async def load(self, stream_keys: Sequence[StreamKey], sent: SentStates) -> dict[StreamKey, Found]:
        """Read responses; return each as stored, also those that storage does not have.

        The order is not that of `stream_keys`. `sent` has the parts that this process has sent, to guess
        which logs are open; a wrong guess only costs further calls.

        Raises:
            StorageUnavailableError: the server is unavailable; call again.
        """
        found: dict[StreamKey, Found] = {}
        for first in range(0, len(stream_keys), _RESPONSES_AT_ONCE):
            some = stream_keys[first : first + _RESPONSES_AT_ONCE]
            states = await self._load_expected(some, sent, found)
            rest = [key for key in some if key not in found]
            if rest:
                await self._load_measured(rest, states, found)
        return found

    async def _load_expected(
        self, stream_keys: Sequence[StreamKey], sent: SentStates, found: dict[StreamKey, Found]
    ) -> dict[StreamKey, Mapping[str, bytes]]:
        """Read states in one call, with the logs that are probably open. Add complete responses to `found`.

        A response is complete if all its open logs were read. Return the states that were read, of complete
        and incomplete responses. The last ones may be missing, because the call ends after about
        `_BYTES_AT_ONCE` bytes.
        """
        names: list[str] = []
        kinds: list[str] = []
        expected: list[tuple[StreamKey, dict[str, int]]] = []
        """The responses, each with the indexes of its logs in `names`, by the field of the part."""
        for key in stream_keys:
            response = sent.get(key)
            names.append(self._keys.state(key) if response is None else response.state)
            kinds.append("state")
            logs: dict[str, int] = {}
            if response is not None and len(response.parts) <= _PARTS_EXPECTED:
                for part in response.parts.values():
                    logs[part.field] = len(names)
                    names.append(part.log)
                    kinds.append("log")
            expected.append((key, logs))
        values = await self._call(names, kinds, _BYTES_AT_ONCE)
        states: dict[StreamKey, Mapping[str, bytes]] = {}
        at = 0
        for key, logs in expected:
            if at >= len(values):
                break
            state = states[key] = named(pairs(values[at]))
            at += 1 + len(logs)
            fields = open_fields(state)
            if at <= len(values) and logs.keys() >= set(fields):
                found[key] = Found(state, {field: values[logs[field]] for field in fields})
        return states

    async def _load_measured(
        self,
        stream_keys: Sequence[StreamKey],
        states: Mapping[StreamKey, Mapping[str, bytes]],
        found: dict[StreamKey, Found],
    ) -> None:
        """Read responses in calls of limited size, and add them to `found`.

        `states` has the states that were read before. They are read again, together with the logs.
        """
        wanted = await self._wanted(stream_keys, states)
        values: dict[str, Any] = {}
        for some in reads_of(wanted):
            names = [name for name, _ in some]
            # No limit: each call has the size that it may have.
            reply = await self._call(names, [kind for _, kind in some], 0)
            values |= zip(names, reply, strict=True)
        for each in wanted:
            logs = {field: values[log] for field, log in each.logs.items()}
            found[each.stream_key] = Found(named(pairs(values[each.state])), logs)

    async def _call(self, names: Sequence[str], kinds: Sequence[str], at_most: int) -> list[Any]:
        """Return the values of the keys `names`, in this order; `kinds` has `state` or `log` for each.

        A state is a list of names and values, alternating; a log is bytes, None if it is missing. Once the
        values exceed `at_most` bytes, the remaining keys are left out; 0 for no limit.
        """
        with unavailable_if_away():
            values: list[Any] = await self._script(keys=names, args=[at_most, *kinds])
        return values

    async def _wanted(
        self, stream_keys: Sequence[StreamKey], states: Mapping[StreamKey, Mapping[str, bytes]]
    ) -> list[Wanted]:
        """Return the keys to read for these responses, in the same order.

        To learn them, read the states that `states` lacks, and the sizes of all open logs.
        """
        pipeline = self._client.pipeline(transaction=False)
        unknown = [key for key in stream_keys if key not in states]
        for key in unknown:
            pipeline.hgetall(self._keys.state(key))
        with unavailable_if_away():
            replies = await pipeline.execute() if unknown else []
        states = {
            **states,
            **{key: named(reply.items()) for key, reply in zip(unknown, replies, strict=True)},
        }
        logs = [
            {field: self._keys.log(PartKey.from_field(key, field)) for field in open_fields(states[key])}
            for key in stream_keys
        ]
        for each in logs:
            for log in each.values():
                pipeline.strlen(log)
        with unavailable_if_away():
            sizes = iter(await pipeline.execute() if len(pipeline) else [])
        return [
            Wanted(
                key,
                self._keys.state(key),
                sum(map(len, states[key].values())),
                each,
                [next(sizes) for _ in each],
            )
            for key, each in zip(stream_keys, logs, strict=True)
        ]


def reads_of(responses: Iterable[Wanted]) -> Iterator[list[tuple[str, str]]]:
    """Divide the keys to read into calls of limited size; yield each as a list of (key, `state` or `log`).

    A response is divided only if it has more than `_BYTES_AT_ONCE` bytes. Its state follows its logs, in the
    same call or in a later one.
    """
    call: list[tuple[str, str]] = []
    filled = 0
    for response in responses:
        keys = [
            *(
                (log, "log", size)
                for log, size in zip(response.logs.values(), response.log_bytes, strict=True)
            ),
            (response.state, "state", response.state_bytes),
        ]
        total = sum(size for *_, size in keys)
        if call and (filled + total > _BYTES_AT_ONCE or len(call) + len(keys) > _KEYS_AT_ONCE):
            yield call
            call, filled = [], 0
        for key, kind, size in keys:
            if call and filled + size > _BYTES_AT_ONCE:
                yield call
                call, filled = [], 0
            call.append((key, kind))
            filled += size
    if call:
        yield call
