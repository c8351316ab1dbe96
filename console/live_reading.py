"""Read the streams of all partitions as long as somebody watches, without a consumer group."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from console.delta_decoding import DeltaDecoder, raw_entry
from console.live_responses import LiveResponses
from console.minute_counts import MinuteCounts
from console.newest_entries import size_of
from console.rate_chart import RateChart
from console.short_fields import with_short_fields
from console.stream_places import StreamPlaces
from deltaloom.messages import AssembledText, Delivery
from service import logs
from service.alert_parsing import NotAnAlertError, parse_alert
from service.cancelling import cancel
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from redis.asyncio import Redis

    from console.console_settings import ConsoleSettings
    from console.live_views import LiveView
    from console.rate_counts import RateCounts
    from deltaloom.streams import StreamNames
    from handlers.core.routing import RoutingTable

_BLOCK_MS: Final = 1000
_PAUSE: Final = 0.02
"""Seconds between two reads, so that a read has many entries while there are many."""
_ENTRIES: Final = 2000
"""Maximum entries of a read, of each stream."""
_FIRST_ENTRIES: Final = 10
"""Entries of the first read, and of a read after a large one."""
_LARGE: Final = 16 * 2**20
"""Bytes of a reply above which the next one has fewer entries, since an entry may have 8 MB."""
_PARTITIONS_AT_ONCE: Final = 128
"""Maximum partitions of a read."""
_LATE_MS: Final = 2000
"""Age in ms of an entry above which the rest of the input is skipped, so that pages show the newest."""
_RETRY: Final = 0.5
_CHART_SECONDS: Final = 5.0
_LINGER: Final = 15.0
"""Seconds for which a view is kept up to date after its client has left: it may only reload."""
_EARLIER: Final = {"deltas": 500, "assembled": 200, "alerts": 200, "deliveries": 400}
"""Earlier entries of each stream that are read first."""

_Fields = dict[bytes, bytes]
_Entries = list[tuple[bytes, _Fields]]
_StreamOf = dict[bytes, tuple["StreamNames", str]]


class LiveReader:
    """The newest state of all streams. It reads nothing while nobody watches.

    Args:
        client: client of the server, with a connection for each read that waits.
        settings: the settings.
        table: the handlers that decode the input.
        counts: counts of the workers.
    """

    def __init__(
        self, client: Redis, settings: ConsoleSettings, table: RoutingTable, counts: RateCounts
    ) -> None:
        self._client = client
        self._settings = settings
        self._decoders = {names: DeltaDecoder(table, names, settings) for names in settings.names.all}
        self.responses = LiveResponses(round(settings.idle_timeout * 1000) + 2 * _BLOCK_MS)
        self.minute = MinuteCounts()
        self.chart = RateChart(counts)
        self.run = token_hex(4)
        """Name of this run of the reader: versions of another run mean nothing."""
        self.skipped = 0
        """Number of times that input was skipped because it was late."""
        self.entries = 0
        """Number of entries that were read."""
        self._late_until = 0.0
        self._away: set[StreamNames] = set()
        """Groups of partitions whose server is away, each by its first partition."""
        self._was_behind = False
        self._views: list[LiveView] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    @property
    def behind(self) -> bool:
        """True if what is shown may be old: the server is away, or input was skipped lately."""
        return bool(self._away) or time.monotonic() < self._late_until

    @asynccontextmanager
    async def watched_by(self, view: LiveView) -> AsyncIterator[None]:
        """Read the streams within the block, and decode the input that the view may show."""
        self._views.append(view)
        self._begin()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(_LINGER, self._leave, view)

    async def news(self, version: int, within: float) -> None:
        """Return once there is a later version than this one, or after some seconds."""
        if self.responses.version == version:
            try:
                async with asyncio.timeout(within):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Stop reading."""
        tasks, self._tasks = self._tasks, []
        await cancel(*tasks)

    def _begin(self) -> None:
        if self._tasks:
            return
        self.responses.clear()
        self.run = token_hex(4)
        names = self._settings.names.all
        size = 1 if self._settings.address.mode == "cluster" else _PARTITIONS_AT_ONCE
        groups = [names[first : first + size] for first in range(0, len(names), size)]
        steps: list[Coroutine[Any, Any, None]] = [self._follow(group) for group in groups]
        self._tasks = [asyncio.create_task(step) for step in (*steps, self._refresh_chart())]

    def _leave(self, view: LiveView) -> None:
        """Forget one who watched; stop reading if nobody is left."""
        self._views.remove(view)
        if self._views:
            return
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self.responses.clear()

    async def _follow(self, partitions: Sequence[StreamNames]) -> None:
        """Read the streams of some partitions for ever."""
        streams: _StreamOf = {
            names.name(kind).encode(): (names, kind) for names in partitions for kind in _EARLIER
        }
        places = StreamPlaces(self._client, streams)
        count = _FIRST_ENTRIES
        while True:
            try:
                await places.check_if_due()
                if not places.after:
                    await self._read_earlier(streams, places)
                count = await self._read(streams, places, count)
                self._away.discard(partitions[0])
            except StorageUnavailableError as error:
                if isinstance(error, SetupError):
                    places.check_soon()
                if partitions[0] not in self._away:
                    logs.logger().warning("live view waits for redis", error=error.state)
                self._away.add(partitions[0])
                self._tell()
                await asyncio.sleep(_RETRY)
            except Exception:  # noqa: BLE001 - the next read goes on after the entries of this one
                logs.logger().exception("live view failed")
                await asyncio.sleep(_RETRY)

    async def _read_earlier(self, streams: _StreamOf, places: StreamPlaces) -> None:
        """Take the latest entries of each stream, and note the ids after which to go on.

        The ids come first, so that entries that cannot be taken are not read again and again.
        """
        earlier: dict[bytes, _Entries] = {}
        for stream in sorted(places.readable, key=lambda each: _order(streams[each][1])):
            earlier[stream] = await self._latest(stream, _EARLIER[streams[stream][1]])
        for stream, found in earlier.items():
            places.go_on(stream, found[0][0] if found else b"0-0")
        for stream, found in earlier.items():
            await self._take(*streams[stream], found[::-1])

    async def _latest(self, stream: bytes, most: int) -> _Entries:
        """Return at most `most` of the latest entries of a stream, newest first; fewer if they are large."""
        found: _Entries = []
        count, size = _FIRST_ENTRIES, 0
        while len(found) < most and size < _LARGE:
            before = b"(" + found[-1][0] if found else b"+"
            with unavailable_if_away():
                page: Any = await self._client.xrevrange(stream, before, count=min(count, most - len(found)))
            found += page
            size += size_of(page)
            if len(page) < count:
                break
            count *= 2
        return found

    async def _read(self, streams: _StreamOf, places: StreamPlaces, count: int) -> int:
        """Wait for the next entries, `count` of each stream, and take them; return the next count."""
        asked: Any = places.asked
        if not asked:  # none of the keys is a stream
            await asyncio.sleep(_BLOCK_MS / 1000)
            return count
        with unavailable_if_away():
            replies: Any = await self._client.xread(asked, count=count, block=_BLOCK_MS)
        now = round(time.time() * 1000)
        for stream, entries in sorted(replies, key=lambda each: _order(streams[each[0]][1])):
            names, kind = streams[stream]
            places.go_on(stream, entries[-1][0])
            await self._take(names, kind, entries)
            if kind == "deltas" and len(entries) == count and _ms(entries[-1][0]) < now - _LATE_MS:
                await self._skip(stream, places)
        self.minute.forget(now)
        self.responses.give_up(now)
        self._tell()
        await asyncio.sleep(_PAUSE)
        is_large = sum(size_of(entries) for _, entries in replies) > _LARGE
        return _FIRST_ENTRIES if is_large else min(2 * count, _ENTRIES)

    async def _skip(self, stream: bytes, places: StreamPlaces) -> None:
        """Go on with the newest entry of the input."""
        with unavailable_if_away():
            newest: Any = await self._client.xrevrange(stream, count=1)
        if newest:
            places.go_on(stream, newest[0][0])
        self.skipped += 1
        self._late_until = time.monotonic() + 2.0

    async def _take(self, names: StreamNames, kind: str, entries: Sequence[tuple[bytes, _Fields]]) -> None:
        self.entries += len(entries)
        if kind == "deltas":
            await self._take_deltas(names, entries)
            return
        for entry_id, fields in entries:
            self._take_output(kind, names.prefix, _ms(entry_id), fields.get(b"__data__", b""))

    async def _take_deltas(self, names: StreamNames, entries: Sequence[tuple[bytes, _Fields]]) -> None:
        """Decode the entries that somebody may look at."""
        filters = {view.wanted for view in self._views}
        raw = [
            raw_entry(entry_id, fields)
            for entry_id, fields in entries
            if any(wanted.may_fit(fields) for wanted in filters)
        ]
        async for commit in self._decoders[names].commits(raw, round(time.time() * 1000)):
            self.responses.take(commit, names.prefix)
            self._tell()

    def _take_output(self, kind: str, source: str, written_ms: int, data: bytes) -> None:
        """Take a message; one that this version cannot read is left out."""
        now = round(time.time() * 1000)
        try:
            if kind == "assembled":
                self.responses.take_text(with_short_fields(AssembledText.model_validate_json(data)), source)
            elif kind == "alerts":
                self.responses.take_alert(with_short_fields(parse_alert(data).alert), source, written_ms)
                self.minute.add("alerts", written_ms, now)
            else:
                delivery = with_short_fields(Delivery.model_validate_json(data))
                self.responses.take_delivery(delivery)
                if delivery.outcome != "delivered":
                    self.minute.add("undelivered", written_ms, now)
        except (NotAnAlertError, ValueError):  # ValueError: pydantic's
            logs.logger().debug("entry not shown, it is no message", kind=kind)

    async def _refresh_chart(self) -> None:
        while True:
            try:
                if await self.chart.read(self.responses.version + 1):
                    self.responses.touch()
                    self._tell()
            except StorageUnavailableError as error:
                logs.logger().debug("chart not read, redis unavailable", error=error.state)
            except Exception:  # noqa: BLE001 - the next one is tried
                logs.logger().exception("chart not read")
            await asyncio.sleep(_CHART_SECONDS)

    def _tell(self) -> None:
        """Wake those who wait for news; that what is shown may be old is news, too."""
        if self._was_behind != self.behind:
            self._was_behind = self.behind
            self.responses.touch()
        self._news.set()
        self._news.clear()


def _order(kind: str) -> int:
    """Return the place of a kind of stream in the order of reading: what comes later is about the former."""
    return list(_EARLIER).index(kind)


def _ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
