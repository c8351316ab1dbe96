"""Compare the installed FastStream and redis-py with the seams that `reading_client.py` lists.

Each test has the number of its seam. A failure means that the seam has moved: change the program and its list
of seams before you upgrade.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff

from deltaloom import GROUP, StreamNames
from deltaloom.address import Address
from service.bus.broker import make_broker, readers_of
from service.bus.envelope import open_entry
from service.bus.subscription import subscribe
from service.logs import FASTSTREAM_LOGGER
from service.pipeline.decode import UnreadableError
from service.settings import Settings
from service.storage.client import reading_client
from service.storage.client.cluster import Cluster
from service.storage.client.connection import client_of
from service.storage.client.direct import DirectConnection, DirectConnections
from service.storage.client.read_batch import ReadBatch
from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from faststream.redis import RedisBroker
    from redis.asyncio import Redis

    from service.storage.client.reading_client import ReadingClient

NAMES = StreamNames("seams")
SETTINGS = Settings(prefix="seams", batch_size=70, block_ms=40)

_TOO_LONG = 5.0
"""Seconds of a wait that shows that a seam has moved."""

_TURNS = 20
"""Turns of the event loop: more than FastStream takes from a reply to the next read."""


def test_each_seam_has_a_test() -> None:
    """The list in `reading_client.py` and the tests here are in step."""
    listed = re.findall(r"^([FR]\d+)\. ", str(reading_client.__doc__), re.MULTILINE)
    tested = {name.split("_")[1].upper() for name in globals() if re.match(r"test_[fr]\d+_", name)}
    assert listed == sorted(listed, key=lambda seam: (seam[0], int(seam[1:])))
    assert set(listed) == tested


# ------------------------------------------------------------------------------------------ FastStream


class ScriptedClient:
    """A client that gives FastStream the replies of a script, and then none. It records all calls."""

    def __init__(self, *batches: list[Any]) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.replies: deque[Any] = deque(
            [(NAMES.deltas.encode(), [(b"7-%d" % number, ReadBatch(batch, 1))])] if batch else []
            for number, batch in enumerate(batches)
        )
        self.may_end = asyncio.Event()
        """Event that ends a cancelled read."""
        self.may_end.set()

    def called(self, name: str) -> int:
        """Return the number of calls of a method."""
        return sum(call[0] == name for call in self.calls)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._answer, name)

    async def _answer(self, name: str, /, *args: Any, **options: Any) -> Any:
        self.calls.append((name, args, options))
        if name != "xreadgroup":
            return True
        if self.replies:
            return self.replies.popleft()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await self.may_end.wait()
            raise


@asynccontextmanager
async def reading(
    client: ScriptedClient, process: Callable[[list[Any]], Awaitable[None]]
) -> AsyncIterator[RedisBroker]:
    """Let FastStream read with this client, as a worker does."""
    broker = make_broker(SETTINGS, cast("ReadingClient", client))
    subscribe(broker, NAMES, SETTINGS, process)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def within(condition: Callable[[], object], message: str) -> None:
    """Wait until a condition holds; the message says what FastStream should do."""
    await wait_until(condition, _TOO_LONG, message=message)


async def turns() -> None:
    """Let all tasks run that can."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def test_f1_the_broker_reads_with_the_client_that_it_is_given() -> None:
    """The broker takes its connection from a method that we override, and closes it when it stops."""
    client = ScriptedClient()
    broker = make_broker(SETTINGS, cast("ReadingClient", client))
    connected = await broker.connect()
    assert cast("Any", connected) is client, (
        "FastStream no longer takes its client from `_make_connection_state().connect`"
    )
    assert cast("Any", broker.config.broker_config.connection.client) is client, (
        "FastStream's connection state no longer gives out `_client`"
    )
    await broker.stop()
    assert client.called("aclose") == 1, "FastStream no longer closes the client when the broker stops"


async def test_f2_a_subscriber_calls_three_methods_of_the_client() -> None:
    """FastStream calls two methods once, which need no command, and reads with keyword arguments."""
    client = ScriptedClient([1], [2])
    processed: list[Any] = []
    async with reading(client, processed_into(processed)):
        await within(lambda: client.called("xreadgroup") == 3, "FastStream reads with `xreadgroup`")
    names = [name for name, _, _ in client.calls]
    assert names == ["xgroup_create", "ping", "xreadgroup", "xreadgroup", "xreadgroup", "aclose"], (
        f"FastStream sends other commands to read a stream: {names}"
    )
    reads = [(args, options) for name, args, options in client.calls if name == "xreadgroup"]
    expected = {
        "groupname": GROUP,
        "consumername": SETTINGS.consumer,
        "streams": {NAMES.deltas: ">"},
        "count": 70,
        "block": 40,
        "noack": False,
    }
    assert reads == [((), expected)] * 3, f"FastStream calls `xreadgroup` with other arguments: {reads[0]}"


async def test_f3_a_reply_of_one_entry_is_one_call_of_the_handler() -> None:
    """The handler gets the object that the client returns in place of an entry's fields."""
    batch, processed = [1, 2, 3], list[Any]()
    async with reading(ScriptedClient(batch), processed_into(processed)):
        await within(lambda: processed, "FastStream passes the reply to the handler")
    assert len(processed) == 1, "FastStream calls the handler several times for a batch of one entry"
    assert processed[0] is batch, "FastStream copies or converts what the client returns"


async def test_f4_an_empty_reply_is_followed_by_the_next_read() -> None:
    """A read without entries costs no call of the handler, and no pause."""
    client, processed = ScriptedClient([], [], [1]), list[Any]()
    async with reading(client, processed_into(processed)):
        await turns()
        assert client.called("xreadgroup") == 4, "FastStream waits before it reads again after an empty reply"
    assert processed == [[1]], "FastStream calls the handler for an empty reply"


async def test_f5_the_next_read_begins_when_the_handler_has_returned() -> None:
    """A call of `xreadgroup` says that the batch before was processed. Shutdown relies on it."""
    client = ScriptedClient([1], [2])
    entered, may_return = asyncio.Event(), asyncio.Event()

    async def process(_: list[Any]) -> None:
        entered.set()
        await may_return.wait()

    async with reading(client, process):
        await within(entered.is_set, "FastStream calls the handler")
        await turns()
        assert client.called("xreadgroup") == 1, "FastStream reads before the handler has returned"
        may_return.set()
        await within(lambda: client.called("xreadgroup") == 3, "FastStream reads on")


async def test_f6_an_error_of_the_handler_does_not_end_reading(caplog: pytest.LogCaptureFixture) -> None:
    """FastStream logs the error, and reads the next batch."""
    client, processed = ScriptedClient([1], [2]), list[Any]()

    async def process(batch: list[Any]) -> None:
        processed.append(batch)
        raise ValueError("a batch that fails")

    with caplog.at_level(logging.ERROR, FASTSTREAM_LOGGER):
        async with reading(client, process):
            await turns()
    assert processed == [[1], [2]], "FastStream stops reading after an error of the handler"
    assert "a batch that fails" in caplog.text, "FastStream does not log an error of the handler"


async def test_f7_a_subscriber_can_start_after_its_broker() -> None:
    """A partition begins when its own server is available, so its subscriber may start late."""
    client, processed = ScriptedClient([1]), list[Any]()
    broker = make_broker(SETTINGS, cast("ReadingClient", client))
    await broker.start()
    try:
        await subscribe(broker, NAMES, SETTINGS, processed_into(processed))()
        await within(lambda: processed, "FastStream reads for a subscriber that starts after its broker")
    finally:
        await broker.stop()


async def test_f8_the_reading_tasks_are_known_until_the_broker_stops() -> None:
    """A stopping broker cancels its reading tasks and forgets them, but does not wait for their end."""
    client = ScriptedClient()
    client.may_end.clear()
    async with reading(client, processed_into([])) as broker:
        await within(lambda: client.called("xreadgroup"), "FastStream reads with `xreadgroup`")
        readers = readers_of(broker)
        asyncio.get_running_loop().call_later(_TOO_LONG, client.may_end.set)
        assert [reader.done() for reader in readers] == [False], (
            "FastStream no longer keeps the reading task in `subscriber.tasks`"
        )
    (reader,) = readers
    assert reader.cancelling(), "FastStream no longer cancels the reading task"
    assert not reader.done(), "FastStream waits for the reading task, so `readers_of` is needless"
    assert readers_of(broker) == [], "FastStream keeps reading tasks when it stops, so take them later"
    client.may_end.set()
    await asyncio.wait({reader}, timeout=30)
    assert reader.cancelled(), "FastStream starts a cancelled reading task again"


async def test_f9_the_envelope_has_a_header_that_we_can_read() -> None:
    """An entry in FastStream's binary format is read without FastStream's parser."""
    data = await BinaryMessageFormatV1.encode(
        message=b'{"type":"keepalive"}', reply_to=None, headers={"response_id": "r"}, correlation_id="c"
    )
    try:
        entry = open_entry(b"7-1", {b"__data__": data})
    except UnreadableError as error:
        pytest.fail(f"FastStream's binary format has another layout: {error}")
    assert entry.body == b'{"type":"keepalive"}', "FastStream's binary format has another layout"
    assert entry.headers["response_id"] == "r", "FastStream's binary format has other headers"


def processed_into(processed: list[Any]) -> Callable[[list[Any]], Awaitable[None]]:
    """Return a handler that appends the batches to a list."""

    async def process(batch: list[Any]) -> None:
        processed.append(batch)

    return process


# -------------------------------------------------------------------------------------------- redis-py


class Wire:
    """A record of what clients send, read and call back, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.replies: list[Any] = []
        self.cut = False
        """True to lose the connection at the next reply."""
        send, read = AbstractConnection.send_packed_command, AbstractConnection.read_response

        async def record_send(
            connection: AbstractConnection, command: Any, *args: Any, **options: Any
        ) -> Any:
            self.log.append("send")
            return await send(connection, command, *args, **options)

        async def record_read(connection: AbstractConnection, *args: Any, **options: Any) -> Any:
            try:
                reply = await read(connection, *args, **options)
            finally:
                self.log.append("read")
            if self.cut:
                await connection.disconnect(nowait=True)
                raise exceptions.ConnectionError("cut")
            return reply

        monkeypatch.setattr(AbstractConnection, "send_packed_command", record_send)
        monkeypatch.setattr(AbstractConnection, "read_response", record_read)

    def call_back(self, reply: Any, **options: Any) -> None:
        """Record a reply with the options of its command."""
        self.log.append(f"callback {options}")
        self.replies.append(reply)


@asynccontextmanager
async def connected(url: str, wire: Wire, **options: Any) -> AsyncIterator[Redis]:
    """Open a client like the one that reads, with a record of its replies."""
    client = client_of(Address.parse(url), retry=Retry(NoBackoff(), 0), **options)
    client.set_response_callback("XREADGROUP", cast("Any", wire.call_back))
    try:
        await client.ping()
        wire.log.clear()
        yield client
    finally:
        await client.aclose()


def command(stream: str, count: int = 1) -> tuple[str | bytes | int, ...]:
    """Return a read as the reading client sends it."""
    return ("XREADGROUP", "GROUP", GROUP, "one", "COUNT", count, b"STREAMS", stream, ">")


async def publish(redis: Redis, stream: str, count: int) -> None:
    """Create the group, and add entries."""
    await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    for number in range(count):
        await redis.xadd(stream, {"n": str(number)}, id=f"7-{number + 1}")


async def error_of(step: Awaitable[Any]) -> exceptions.RedisError | None:
    """Return the error of redis-py with which a step fails, or None."""
    try:
        await step
    except exceptions.RedisError as error:
        return error
    return None


async def read_singly(client: Redis, command: tuple[str | bytes | int, ...], **options: Any) -> None:
    """Send one command."""
    await client.execute_command(*command, **options)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_r1_a_callback_gets_the_raw_reply_and_the_options_of_its_command(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    """Our callback replaces the parser that would make a dictionary of each entry."""
    stream, wire = f"{prefix}:deltas", Wire(monkeypatch)
    await publish(redis, stream, 2)
    async with connected(redis_url, wire, protocol=protocol) as client:
        for number in range(3):
            await read_singly(client, command(stream), number=number)
    callbacks = [line for line in wire.log if line.startswith("callback")]
    assert callbacks == [f"callback {{'number': {number}}}" for number in range(3)], (
        f"redis-py no longer passes a command's options to its response callback: {callbacks}"
    )
    *full, empty = wire.replies
    names = [dict(reply) for reply in full]
    assert names == [
        {stream.encode(): [[b"7-%d" % number, [b"n", b"%d" % (number - 1)]]]} for number in (1, 2)
    ], f"redis-py passes another form of the reply to a response callback: {full}"
    assert isinstance(full[0], dict if protocol == 3 else list), "redis-py changes the reply of this protocol"
    assert empty is None, f"redis-py passes another form of an empty reply to a response callback: {empty!r}"


@pytest.mark.parametrize("protocol", [2, 3])
async def test_r2_a_connected_connection_can_be_taken_over(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    """A direct connection uses the transport of redis-py's, and its classes of errors."""
    async with connected(redis_url, Wire(monkeypatch), protocol=protocol) as client:
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        await connection.connect()
        assert isinstance(connection._writer, asyncio.StreamWriter), "redis-py keeps its stream elsewhere"  # noqa: SLF001 - the seam
        direct = DirectConnection(connection)
        assert not connection.is_connected, "redis-py counts a connection without a stream as connected"
        try:
            assert await direct.request(("ECHO", b"one")) == b"one", "a reply of the log-in is outstanding"
            error = await error_of(direct.request(("EVALSHA", "0" * 40, 0)))
            assert isinstance(error, exceptions.NoScriptError), f"redis-py changes its classes: {error!r}"
        finally:
            direct.close()


async def test_r3_a_pool_makes_connections_that_it_does_not_keep(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A direct connection belongs to no pool; the test of R6 makes one to a cluster's node."""
    async with connected(redis_url, Wire(monkeypatch)) as client:
        pool: Any = client.connection_pool
        one, other = (pool.make_connection() for _ in range(2))
        assert one is not other, "redis-py gives out one connection twice"
        assert isinstance(one, AbstractConnection), "redis-py makes something else than a connection"
        assert not one.is_connected, "redis-py connects a connection when it makes it"


async def test_r4_a_lost_reply_is_not_requested_again(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated command would deliver other entries, and those of the lost reply would stay pending."""
    stream, wire = f"{prefix}:deltas", Wire(monkeypatch)
    await publish(redis, stream, 2)
    async with connected(redis_url, wire) as client:
        wire.cut = True
        error = await error_of(read_singly(client, command(stream)))
    assert isinstance(error, exceptions.ConnectionError), f"redis-py hides a lost connection: {error!r}"
    assert wire.log == ["send", "read"], f"redis-py repeats commands without being told: {wire.log}"


async def test_r5_an_error_says_that_the_group_is_missing(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading client knows a missing group by the first word of the message."""
    async with connected(redis_url, Wire(monkeypatch)) as client:
        error = await error_of(read_singly(client, command(f"{prefix}:no-stream")))
    assert type(error) is exceptions.ResponseError, f"redis-py has a class for a missing group: {error!r}"
    assert str(error).startswith("NOGROUP"), f"redis-py removes NOGROUP from the error's message: {error}"


async def test_r6_a_cluster_s_client_is_led_by_its_private_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read asks no node of a cluster for its keys, and a closed client reads the slot map again.

    This also tests R1 and R3 on a cluster, to start it only once.
    """
    stream, wire = "seams:deltas", Wire(monkeypatch)
    nodes_of, asked = Cluster.get_nodes_from_slot, list[str]()

    async def record(client: Cluster, command: str, *args: Any) -> Any:
        asked.append(command)
        return await nodes_of(client, command, *args)

    monkeypatch.setattr(Cluster, "get_nodes_from_slot", record)
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster:
        url = f"redis+cluster://{cluster.addresses}"
        async with connected(url, wire) as client:
            await publish(client, stream, 6)
            wire.log.clear()
            asked.clear()
            await read_singly(client, command(stream), number=7)
            assert asked == ["XREADGROUP"], f"redis-py no longer asks `get_nodes_from_slot` once: {asked}"
            assert wire.log == ["send", "read", "callback {'number': 7}"], (
                f"redis-py no longer asks `_determine_slot` alone for the node of a read: {wire.log}"
            )
            wire.log.clear()
            direct = await DirectConnections(client).to_server_of(stream)
            assert await direct.request(("XLEN", stream)) == 6, "a node's connection is made in another way"
            direct.close()
            slot = await cluster.slot_of(stream)
            owner = await cluster.owner(slot)
            target = next(node for node in await cluster.masters() if node is not owner)
            await cluster.migrate_slot(slot, target)
            await client.aclose()
            wire.log.clear()
            assert await error_of(read_singly(client, command(stream), number=8)) is None, (
                "redis-py does not read the slot map again although `_initialize` is set"
            )
            assert wire.log[-1] == "callback {'number': 8}"


async def test_r7_a_sentinel_s_connection_looks_up_the_master_when_it_connects() -> None:
    """Our connection tells by `retry_socket_connect` whether `connect` has looked up the master already."""
    looked_up: list[str] = []
    checked: list[dict[str, Any]] = []

    class Pool:
        is_master = True
        check_connection = False

        async def get_master_address(self) -> tuple[str, int]:
            looked_up.append("master")
            return "192.0.2.1", 6379

    class Connection(SentinelManagedConnection):
        async def connect_check_health(self, **options: Any) -> None:  # type: ignore[override]  # any options
            checked.append(options)

    await cast("Any", Connection)(connection_pool=Pool()).connect()
    assert looked_up == ["master"], "redis-py no longer looks up the master once in `connect`"
    assert [options.get("retry_socket_connect") for options in checked] == [False], (
        f"redis-py's `connect` no longer calls `connect_check_health(retry_socket_connect=False)`: {checked}"
    )
