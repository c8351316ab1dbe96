"""Tests of the users in `deploy/users.acl`: each has exactly the rights that its role needs."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from deltaloom import AssembledText, Partitions
from deltaloom.streams import GROUP
from service.alerts.deciding.policy import load
from service.apps.worker_app import WorkerApp
from service.settings import MAX_PARTITIONS, Settings
from service.storage.rights import OF_WORKERS
from tests.archive.archivers import archiving, pending, settings_of
from tests.console.running import console
from tests.docs.scripts import run_example
from tests.relays import SECRETS, destination, raise_alert, relay_environment, relay_process
from tests.relays import wait_until_settled as wait_until_delivered
from tests.service.cli.command import deltaloom, environment
from tests.users import DOES_WITHOUT, FILE, KINDS, OWNER, USERS, NodeWithUsers, granted, line_of
from tests.waiting import wait_until
from tests.webhook_receiver import receiving
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from deltaloom import StreamNames
    from tests.console.running import Client
    from tests.webhook_receiver import Receiver

DELTA = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0}
DONE = {"type": "response.refusal.done", "output_index": 0, "content_index": 0}
REFUSAL = [
    {**DELTA, "sequence_number": 1, "delta": "No."},
    {**DONE, "sequence_number": 2, "refusal": "No."},
]
WATCHED = (
    "XINFO GROUPS deltaloom:deltas",
    "XPENDING deltaloom:deltas deltaloom",
    "HGETALL deltaloom:counts",
    "XLEN deltaloom:dead-letters",
    "ZCARD deltaloom:waiting",
)
"""The commands that docs/operations.md recommends for monitoring."""

OF_CONSOLES = {
    "ping",  # only with `health_check_interval` in the URL
    *("xpending", "xrange"),  # the age of entries that are pending or unread
    "type",  # the name of a key of another type
}
"""Commands that a console needs if something is wrong."""

SELDOM = {
    "console": OF_CONSOLES,
    "console-actions": {*OF_CONSOLES, "eval_ro"},  # the other console has loaded the scripts
    "relay": {"ping"},  # only with `health_check_interval` in the URL
    "archive": {"ping"},  # only with `health_check_interval` in the URL
    "subscriber": {"ping"},  # only with `health_check_interval` in the URL
    "worker": {
        *("mget", "getrange", "expire", "xdel"),  # growing logs, `kind_retention`
        *("zmscore", "zpopmin", "zrange"),  # too many open responses or counted types
        "hexists",  # a second text for a part, an alert about a response's end
        "append",  # a log of more than 2 KB
        "hkeys",  # a response whose first part comes after its first batch, or with a state of v0.1.0
    },
}
"""Granted commands that not every run uses."""


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NodeWithUsers]:
    """Run a server for one test alone."""
    node = NodeWithUsers(tmp_path / "server", request.param)
    await node.start()
    try:
        yield node
    finally:
        await node.kill()


class Flow:
    """The path of some responses from producer to operator, with a user for each role."""

    def __init__(
        self, server: NodeWithUsers, owner: Redis, partitions: int, folder: Path, receiver: Receiver
    ) -> None:
        self.server = server
        self.owner = owner
        self.partitions = Partitions(partitions)
        self.folder = folder
        self.receiver = receiver
        self.used: dict[str, set[str]] = {}

    def command(self, user: str, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run a command as a user, and return its output."""
        count = str(self.partitions.count)
        env = environment(self.server.url_of(user), DELTALOOM_PARTITIONS=count, **SECRETS)
        done = deltaloom(*arguments, env=env, stdin=stdin.encode(), cwd=self.folder)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout

    @asynccontextmanager
    async def part_of(self, user: str) -> AsyncIterator[None]:
        """Record the commands that the server runs within the block as those of a user."""
        await self.server.used()
        yield
        self.used[user] = await self.server.used()

    async def publish(self) -> None:
        """Publish refusals, some without an end, and broken events, with the command and with clients."""
        events = "\n".join(json.dumps(each) for each in REFUSAL)
        url = self.server.url_of("producer")
        for number in range(4):
            printed = self.command(
                "producer", "publish", "-", "--response-id", f"resp_{number}", stdin=events
            )
            assert printed.startswith("published 2 events in 2 entries")
        async with Redis.from_url(url) as client:
            for number in range(4):
                open_, broken = f"open_{number}", f"broken_{number}"
                fields: dict[Any, Any] = {"event": json.dumps(REFUSAL[0]), "response_id": open_}
                await client.xadd(self.partitions.of(open_).deltas, fields)
                fields = {"event": "{", "response_id": broken}
                await client.xadd(self.partitions.of(broken).deltas, fields)
        if not self.partitions.count:
            for example in ("publish_python.py", "publish_faststream.py"):
                await run_example(example, url, "deltaloom", self.folder)

    async def work(self) -> None:
        """Run workers until all responses are finished or abandoned, and periodic tasks have run."""
        settings: dict[str, Any] = {
            "partitions": self.partitions.count,
            "idle_timeout": 1,
            "sweep_interval": 0.2,
            "trim_interval": 0.2,
            "retention_bytes": 1 << 30,
            "retention_group": "archive",
            "claim_time": 1,
            "kind_retention": "refusal=3600",
            "spike_window": 10,
            "spike_baseline": 60,
        }
        expected = {"refusal opened", "dead letter", "server at risk"}
        for consumer in ("first", "second"):
            url = self.server.url_of("worker")
            async with running_workers(url, "deltaloom", consumer=consumer, **settings) as (worker,):
                await wait_until(self.is_settled, 30, message="everything is finished or given up")
                wrong = [line for line in worker.lines() if line["level"] not in {"debug", "info"}]
                assert {line["event"] for line in wrong} <= expected, wrong

    async def is_settled(self) -> bool:
        """Return whether no entry is unread or pending, and no response is open."""
        return all([await self._is_settled(names) for names in self.partitions.all])

    async def _is_settled(self, names: StreamNames) -> bool:
        if not await self.owner.exists(names.deltas):
            return False
        groups = {group["name"]: group for group in await self.owner.xinfo_groups(names.deltas)}
        mine = groups.get(GROUP.encode(), {"lag": None, "pending": None})
        is_open = await self.owner.zcard(names.name("open"))
        return mine["lag"] == 0 and mine["pending"] == 0 and not is_open

    async def deliver(self) -> None:
        """Deliver alerts singly and as digests, have some refused, and disable the destination."""
        receiver, accept = self.receiver, self.receiver.answer
        file = self.folder / "alerts.toml"
        grouped = {"by": ["model"], "window": 1, "from": 2}
        file.write_text(destination("here", receiver.url, group=grouped))
        env = relay_environment(
            self.server.url_of("relay"), "deltaloom", partitions=self.partitions.count, http="127.0.0.1:0"
        )
        async with relay_process(file, env):
            await self.wait_until_delivered()
            assert receiver.taken
            for status, name in ((400, "refused"), (410, "gone")):
                receiver.answer = lambda _id, _count, status=status: web.Response(status=status)  # type: ignore[misc]
                for names in self.partitions.all:
                    await raise_alert(self.owner, names.name("")[:-1], "opened", name, model=name)
                await self.wait_until_delivered()
            gone = self.partitions.all[0].name("gone")
            await wait_until(lambda: self.owner.hlen(gone), message="the destination is disabled")
        receiver.answer = accept

    async def wait_until_delivered(self) -> None:
        """Wait until no alert is pending for the destination."""
        for names in self.partitions.all:
            await wait_until_delivered(self.owner, names.name("")[:-1], "here", 30)

    async def subscribe(self) -> None:
        """Read the outputs in a group, claim and acknowledge entries, and look up finished texts."""
        taken: list[AssembledText] = []
        async with Redis.from_url(self.server.url_of("subscriber")) as client:
            for names in self.partitions.all:
                for stream in (names.assembled, names.alerts, names.deliveries):
                    await client.xgroup_create(stream, "archive", id="0", mkstream=True)
                    reply: Any = await client.xreadgroup("archive", "one", {stream: ">"}, count=100)
                    await client.xautoclaim(stream, "archive", "another", 0, "0-0")
                    for entry_id, fields in [entry for _, found in reply for entry in found]:
                        if stream == names.assembled:
                            taken.append(AssembledText.model_validate_json(fields[b"__data__"]))
                        await client.xack(stream, "archive", entry_id)
            for text in taken:
                response = text.response_id or ""
                assert await client.hgetall(self.partitions.of(response).item(response, 0))
        expected = {f"{name}_{number}" for name in ("resp", "open") for number in range(4)}
        assert {text.response_id for text in taken} >= expected

    async def archive(self) -> None:
        """Archive the outputs, also what a dead archiver has read, and measure how far behind it is."""
        streams = [
            name for each in self.partitions.all for name in (each.assembled, each.alerts, each.deliveries)
        ]
        for stream in streams:
            await self.owner.xgroup_create(stream, "archivers", id="0", mkstream=True)
            await self.owner.xreadgroup("archivers", "dead", {stream: ">"}, count=1)
        folder = self.folder / "archive"
        settings = settings_of(
            self.server.url_of("archive"),
            "deltaloom",
            f"sqlite:{folder}/archive.db",
            archive_group="archivers",
            partitions=self.partitions.count,
            http="127.0.0.1:0",
        )
        await self.server.used()
        async with archiving(settings) as app:
            await wait_until(lambda: "archive_oldest_seconds" in app.samples(), message="it has measured")
            folder.mkdir()

            async def is_done() -> bool:
                return all([await pending(self.owner, each, "archivers") == (0, 0) for each in streams])

            await wait_until(is_done, 30, message="all is archived")
            assert app.archiver.counts["new"] >= 16

    @asynccontextmanager
    async def console(self, user: str) -> AsyncIterator[Client]:
        """Run a console as a user."""
        file = load(self.folder / "alerts.toml", SECRETS)
        url, actions = self.server.url_of(user), user == "console-actions"
        partitions = self.partitions.count
        with pytest.MonkeyPatch.context() as patch:
            for name, value in SECRETS.items():
                patch.setenv(name, value)
            async with console(
                redis_url=url, partitions=partitions, allows_actions=actions, alerts_file=file
            ) as client:
                yield client

    async def look(self, user: str) -> None:
        """Open all pages of a console."""
        async with self.console(user) as client, client.watching() as page:
            await page.until(lambda page: len(page.rows) >= 8)
            for path in ("responses/resp_1", "alerts", "rates", "rates?hours=1", "health"):
                await client.json(f"api/{path}")
            assert await client.status("api/responses/nobody") == 404
            stream = self.partitions.of("late").deltas
            entry = await self.owner.xadd(stream, {"event": json.dumps(REFUSAL[0]), "response_id": "late"})
            await page.until(lambda page: "late" in page.rows)
            await self.owner.xdel(stream, entry)

    async def act(self) -> None:
        """Send an undelivered alert again from a console."""
        names = self.partitions.all[0]
        newest: Any = await self.owner.xrevrange(names.alerts, count=1)
        ((entry_id, fields),) = newest
        alert = json.loads(fields[b"__data__"])
        undelivered: dict[Any, Any] = {
            "destination": "here",
            "reason": "refused",
            "answer": "400",
            "attempts": 1,
            "failed_at": alert["raised_at"],
            "entry_id": entry_id,
            "__data__": fields[b"__data__"],
        }
        await self.owner.xadd(names.undelivered, undelivered)
        async with self.console("console-actions") as client:
            answer = await client.act(f"api/alerts/{alert['id']}/resend", {"destination": "here"})
            assert answer == (200, {"outcome": "delivered", "answer": "delivered"})
        assert await self.owner.xlen(names.undelivered) == 0

    def operate(self) -> None:
        """Run all commands of an operator."""
        do = partial(self.command, "operator")
        for stream in ("assembled", "alerts", "deliveries", "dead-letters"):
            assert do("tail", stream, "--from-start", "--count", "1", "--json")
        assert "No." in do("show", "resp_1")
        do("show", "nobody", code=1)
        listed = [json.loads(line)["id"] for line in do("dead-letters", "list", "--json").splitlines()]
        assert len(listed) == 4
        do("dead-letters", "show", listed[0])
        assert "is back on the input" in do("dead-letters", "replay", listed[0])
        assert do("tail", "deltas", "--from-start", "--count", "1", "--json")
        assert "1 removed" in do("dead-letters", "drop", listed[1])
        assert "2 back on the input" in do("dead-letters", "replay", "--all")
        assert "refused" in do("alerts", "undelivered")
        assert do("alerts", "explain", "refused")
        do("alerts", "rates")
        assert "enabled" in do("alerts", "enable", "here")
        assert "delivered" in do("alerts", "resend", "--all")
        assert "FAIL" not in do("check", "--read-only")
        assert json.loads(do("drain", "--json", "--timeout", "10"))["drained"]
        assert "read again" in do("drain", "--resume")
        assert "deltaloom_redis_up 1.0" in do("metrics")
        with BlockingRedis.from_url(self.server.url_of("operator")) as client:
            for command in WATCHED:
                client.execute_command(
                    *command.replace("deltaloom:", self.partitions.all[0].name("")).split()
                )


@pytest.mark.parametrize("partitions", [0, 3])
async def test_each_may_do_all_that_is_its_own(
    server: NodeWithUsers, tmp_path: Path, partitions: int
) -> None:
    """Users can do their jobs, and have no right that they do not need."""
    async with Redis.from_url(server.url_of(OWNER)) as owner, receiving() as receiver:
        flow = Flow(server, owner, partitions, tmp_path, receiver)
        async with flow.part_of("producer"):
            await flow.publish()
        async with flow.part_of("worker"):
            assert "created" in await asyncio.to_thread(flow.command, "worker", "init")
            await flow.work()
            assert "FAIL" not in await asyncio.to_thread(flow.command, "worker", "check")
        async with flow.part_of("relay"):
            await flow.deliver()
        async with flow.part_of("subscriber"):
            await flow.subscribe()
        async with flow.part_of("archive"):
            await flow.archive()
        async with flow.part_of("console"):
            await flow.look("console")
        async with flow.part_of("operator"):
            await asyncio.to_thread(flow.operate)
        async with flow.part_of("console-actions"):
            await flow.act()
            await flow.look("console-actions")
        assert await server.refused() == DOES_WITHOUT
        for user in USERS:
            unused = granted(user) - flow.used[user] - SELDOM.get(user, set()) - {"client|setinfo"}
            assert not unused, f"{user}: rights that it does not need"


async def test_the_unchanged_file_lets_nobody_in(server: NodeWithUsers) -> None:
    """The users of the file are disabled and have no password, so that loading it opens nothing."""
    lines = FILE.read_text("utf-8").splitlines()
    assert [line.split()[1] for line in lines] == [OWNER, *USERS]
    for line in lines:
        assert line.split()[2] == "off"
        assert not re.search(r" (on|nopass|[>#]\S*)( |$)", line)
    await server.load(FILE.read_text("utf-8"))
    for url in (server.url, *map(server.url_of, (OWNER, *USERS))):
        async with Redis.from_url(url) as client:
            with pytest.raises(AuthenticationError):
                await client.ping()


@pytest.mark.parametrize("user", USERS)
def test_nobody_gets_what_is_dangerous(user: str) -> None:
    """Rights that expose or stop the whole server are granted to no user."""
    line = line_of(user)
    assert "+@" not in line
    assert "allkeys" not in line
    assert not granted(user) & {"keys", "flushall", "flushdb", "config", "monitor", "acl", "debug", "scan"}
    assert granted(user) >= {"ping", "client|setinfo"}


async def test_each_is_refused_what_belongs_to_others(server: NodeWithUsers) -> None:
    """A user cannot do what belongs to other roles."""
    for user, commands in REFUSED.items():
        for command in (*commands, *FORBIDDEN):
            for name in ("deltaloom:", "deltaloom:{7}:", "deltaloom:{1023}:"):
                parts = command.replace("deltaloom:", name).split()
                assert not await server.may(user, *parts), (user, parts)
            assert await server.may(OWNER, *command.split()), command


async def test_all_partitions_are_covered(server: NodeWithUsers) -> None:
    """The key patterns cover partitions with any number of digits."""
    every = Partitions(MAX_PARTITIONS).all
    for names in (Partitions().all[0], *(every[number] for number in (0, 9, 10, 99, 100, 999, 1000, 1023))):
        assert await server.may("producer", "XADD", names.deltas, "*", "event", "{}")
        assert await server.may("worker", "DEL", names.name("state:response:resp_1"))
        assert await server.may("relay", "XREADGROUP", "GROUP", "relay:a", "b", "STREAMS", names.alerts, ">")
        assert await server.may("relay", "XADD", names.undelivered, "*", "a", "b")
        assert await server.may("relay", "XADD", names.deliveries, "*", "a", "b")
        assert await server.may("subscriber", "XACK", names.assembled, "archive", "0-1")
        assert await server.may("subscriber", "XACK", names.deliveries, "archive", "0-1")
        for stream in (names.assembled, names.alerts, names.deliveries):
            assert await server.may("archive", "XAUTOCLAIM", stream, "archive", "me", "0", "0-0")
        assert await server.may("subscriber", "HGETALL", names.item("resp_1", 0))
        assert await server.may("operator", "XDEL", names.dead_letters, "0-1")
    assert every[-1].partition == 1023


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("producer", ("show", "resp_1")),
        ("producer", ("tail", "assembled", "--from-start")),
        ("subscriber", ("dead-letters", "list")),
        ("subscriber", ("publish", "-")),
    ],
)
async def test_a_command_says_what_is_missing(
    server: NodeWithUsers, tmp_path: Path, user: str, command: tuple[str, ...]
) -> None:
    """A command without a needed right ends at once with the server's refusal."""
    env = environment(server.url_of(user))
    done = await asyncio.to_thread(deltaloom, *command, env=env, stdin=b"{}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{server.address} refused: " in done.stderr
    assert "no permissions" in done.stderr.lower()


async def test_all_missing_rights_are_named_at_once(server: NodeWithUsers) -> None:
    """Give the command that grants all of them, so that an operator does not find one after the other."""
    assert set(OF_WORKERS) == granted("worker") - {"ping", "client|setinfo", "eval", "evalsha"}
    url = server.url_of("worker")
    async with Redis.from_url(server.url_of(OWNER)) as owner:
        await owner.acl_setuser("worker", enabled=True, commands=["-zincrby", "-xautoclaim"])
        done = await asyncio.to_thread(deltaloom, "check", "--json", env=environment(url))
        says = {each["what"]: each["says"] for each in json.loads(done.stdout)["checks"]}["scripts"]
        command = says.partition(": ACL SETUSER worker ")[2].partition(". ")[0]
        assert command == "+xautoclaim +zincrby"
        worker = WorkerApp(Settings(redis_url=url, block_ms=50))
        tasks = [asyncio.create_task(worker.start()), asyncio.create_task(worker.serve())]
        waits = "deltaloom:deltas: Redis refuses commands (NOPERM), waits for an operator; see its log"
        await wait_until(lambda: worker.not_ready() == [waits], 30)
        await owner.acl_setuser("worker", enabled=True, commands=command.split())
        await wait_until(lambda: worker.not_ready() == [], 30)
        worker.stop()
        await asyncio.gather(*tasks)


FORBIDDEN = (
    "FLUSHALL",
    "KEYS *",
    "CONFIG GET *",
    "MONITOR",
    "ACL LIST",
    "SCRIPT FLUSH",
    "XGROUP DESTROY deltaloom:deltas deltaloom",
    "XGROUP SETID deltaloom:deltas deltaloom 0",
    "XSETID deltaloom:deltas 1-1",
    "GET other:key",
    "XADD other:stream * event {}",
    "PUBLISH channel message",
)
"""Commands that no user may run."""

CHANGES = (
    "XADD deltaloom:deltas * event {}",
    "XADD deltaloom:alerts * __data__ {}",
    "XDEL deltaloom:alerts 0-1",
    "XTRIM deltaloom:deltas MAXLEN 0",
    "XREADGROUP GROUP deltaloom me STREAMS deltaloom:deltas >",
    "XACK deltaloom:deltas deltaloom 0-1",
    "SET deltaloom:draining text",
    "HDEL deltaloom:gone here",
    "DEL deltaloom:state:response:resp_1",
    "EVALSHA abc 1 deltaloom:deltas",
)
"""Commands that change something, which no console may."""

REFUSED = {
    "producer": (
        "XRANGE deltaloom:deltas - +",
        "XREADGROUP GROUP deltaloom me STREAMS deltaloom:deltas >",
        "XDEL deltaloom:deltas 0-1",
        "XTRIM deltaloom:deltas MAXLEN 0",
        "DEL deltaloom:deltas",
        "XADD deltaloom:assembled * __data__ {}",
        "XADD deltaloom:alerts * __data__ {}",
        "XADD deltaloom:dead-letters * __data__ {}",
        "XADD deltaloom:state:response:{7}:deltas * event {}",
        "XADD deltaloom:state:response:x}:deltas * event {}",
        "XRANGE deltaloom:assembled - +",
        "HGETALL deltaloom:item:resp_1:0",
        "EXISTS deltaloom:item:resp_1:0",
        "EVALSHA abc 1 deltaloom:deltas",
    ),
    "worker": (
        "GET deltaloom-of-another:state:response:resp_1",
        "XREADGROUP GROUP deltaloom me STREAMS other:deltas >",
    ),
    "relay": (
        "XRANGE deltaloom:deltas - +",
        "XRANGE deltaloom:assembled - +",
        "HGETALL deltaloom:item:resp_1:0",
        "XADD deltaloom:deltas * event {}",
        "XADD deltaloom:assembled * __data__ {}",
        "XADD deltaloom:alerts * __data__ {}",
        "XTRIM deltaloom:alerts MAXLEN 0",
        "DEL deltaloom:alerts",
        "SET deltaloom:alerts text",
        "EXPIRE deltaloom:alerts 1",
        "XRANGE deltaloom:undelivered - +",
        "XGROUP DESTROY deltaloom:alerts relay:here",
    ),
    "subscriber": (
        "XADD deltaloom:deltas * event {}",
        "XADD deltaloom:assembled * __data__ {}",
        "XRANGE deltaloom:deltas - +",
        "XREADGROUP GROUP deltaloom me STREAMS deltaloom:deltas >",
        "XACK deltaloom:deltas deltaloom 0-1",
        "XRANGE deltaloom:dead-letters - +",
        "XREADGROUP GROUP mine me STREAMS deltaloom:dead-letters >",
        "XDEL deltaloom:assembled 0-1",
        "XGROUP CREATE deltaloom:state:response:x}:assembled g 0 MKSTREAM",
        "XGROUP DESTROY deltaloom:alerts relay:here",
        "HGETALL deltaloom:state:response:resp_1",
        "HSET deltaloom:item:resp_1:0 refusal:0 {}",
        "EVALSHA abc 1 deltaloom:alerts",
    ),
    "archive": (
        "XADD deltaloom:deltas * event {}",
        "XADD deltaloom:assembled * __data__ {}",
        "XRANGE deltaloom:deltas - +",
        "XREADGROUP GROUP deltaloom me STREAMS deltaloom:deltas >",
        "XACK deltaloom:deltas deltaloom 0-1",
        "XRANGE deltaloom:dead-letters - +",
        "XDEL deltaloom:assembled 0-1",
        "XTRIM deltaloom:assembled MAXLEN 0",
        "XGROUP CREATE deltaloom:state:response:x}:assembled g 0 MKSTREAM",
        "XGROUP DESTROY deltaloom:alerts relay:here",
        "HGETALL deltaloom:item:resp_1:0",
        "HGETALL deltaloom:state:response:resp_1",
        "EVALSHA abc 1 deltaloom:alerts",
    ),
    "operator": (
        "XDEL deltaloom:deltas 0-1",
        "XDEL deltaloom:assembled 0-1",
        "XDEL deltaloom:alerts 0-1",
        "XADD deltaloom:assembled * __data__ {}",
        "XADD deltaloom:alerts * __data__ {}",
        "XADD deltaloom:dead-letters * reason none",
        "XREADGROUP GROUP deltaloom me STREAMS deltaloom:deltas >",
        "XACK deltaloom:deltas deltaloom 0-1",
        "DEL deltaloom:state:response:resp_1",
        "HSET deltaloom:state:response:resp_1 over 1",
        "HDEL deltaloom:format min_reader",
        "SET deltaloom:relay:here:lease me",
    ),
    "console": (*CHANGES, "XDEL deltaloom:undelivered 0-1"),
    "console-actions": CHANGES,
}
"""Commands of other roles that a user may not run, by user."""
