"""Scripts that fail half way lose nothing, and write nothing twice when they are repeated.

The same sequence of steps runs for each command that a script calls, and for each key. Before each step the
command is forbidden, or the key is replaced by a list; the step fails, the server is repaired, and the step
is repeated. In the end the outputs must be the same as without any failure.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.asyncio import Redis

from deltaloom import GROUP, DeadLetter
from embedded.embedded_server import EmbeddedServer
from handlers import BUILT_IN
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.keys import BEYOND_LIMIT, Keys
from service.pipeline.processing import BatchProcessor
from service.ports.commit import Commit
from service.ports.outbox import CONSUMER, EntryRef, Failure
from service.ports.storage import SetupError
from service.rates.spikes import Change, Subject
from service.retrying import RetryUntilAvailable
from service.storage import scripts
from service.storage.client.availability import unavailable_if_away
from service.storage.group import ConsumerGroup
from service.storage.kind_retention import KindRetention
from service.storage.letter_store import DeadLetters
from service.storage.output_budget import OutputBudget
from service.storage.redis_outbox import DestinationGroup, RedisLease, RedisOutbox
from service.storage.redis_rates import RedisRates
from service.storage.store import RedisStorage
from tests.bench import COMPLETED, KEEPALIVE, Bench, delta, done
from tests.notifications import alert
from tests.relays import deliveries, ended
from tests.streams import raw, read_as
from tests.waiting import wait_until
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from service.ports.storage import RawEntry
    from service.settings import Settings

    Step = Callable[[], Awaitable[None]]

PREFIX = "half"
USER = "worker"
FILTERED = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}
CREATED = {"type": "response.created", "response": {"model": "m"}}
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
FAILURE = Failure("refused", "400 no", 3, NOW)

MEASURES = "figures"
"""The script that only measures: nothing depends on its commands."""

_CALL = re.compile(r"redis\.p?call\('(\w+)'(?:, '(GROUPS|STREAM|CONSUMERS|DELCONSUMER|USAGE)')?")
SCRIPTS = sorted(
    path.name.removesuffix(".lua") for path in scripts.FOLDER.iterdir() if path.name.endswith(".lua")
)
COMMANDS = sorted(
    {
        "|".join(filter(None, found)).lower()
        for name in SCRIPTS
        if name != MEASURES
        for found in _CALL.findall(scripts.source(name))
    }
)
NOT_NEEDED = {"time", "info"}
"""Commands that a script can do without."""


class Impatient(RetryUntilAvailable):
    """A retry policy that calls each step once, and passes errors on."""

    async def call(self, step: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call the step once."""
        return await step(*args)


class Story:
    """A sequence of steps in one partition; each step can be repeated after it has failed."""

    def __init__(self, admin: Redis, user: Redis) -> None:
        self.bench = Bench(admin, PREFIX, consumer="one", max_response_parts=2, max_part_fragments=3)
        self.admin, self.user = admin, user
        self.settings = self.bench.settings
        self.names, self.keys = self.bench.names, Keys(self.bench.names)
        self.group = ConsumerGroup(user, self.keys, "one")
        self.worker = self.worker_with(self.settings)
        self.sweeper = self.worker_with(self.settings.model_copy(update={"max_open_responses": 1}))

    def worker_with(self, settings: Settings) -> BatchProcessor:
        """Return a worker with the user's rights."""
        return BatchProcessor(
            RedisStorage(self.user, self.keys, settings),
            RoutingTable(BUILT_IN.values()),
            self.names,
            settings,
            Impatient(),
            open_entry,
        )

    async def read(self, consumer: str = "one") -> list[RawEntry]:
        """Deliver the unread entries to a consumer."""
        return [raw(*entry) for entry in await read_as(self.admin, self.names.deltas, GROUP, consumer, 100)]

    async def steps(self) -> AsyncIterator[Step]:
        """Yield the steps, and do the work of others between them."""
        publish = self.bench.publish
        await ConsumerGroup(self.admin, self.keys, "one").ensure()
        await publish(CREATED, response_id="r1", tenant="t")
        await publish(delta(1, "No", "refusal"), delta(2, "thing", "refusal"), response_id="r1")
        await publish(delta(1, "Let me "), {"type": "made.up"}, "no JSON", response_id="r2")
        yield self.processing(await self.read())
        await publish(delta(3, " at all", "refusal"), KEEPALIVE, response_id="r1")
        await publish(delta(2, "think"), response_id="r2", model="m")
        yield self.processing(await self.read())
        await publish({**done("Nothing at all", "refusal"), "sequence_number": "x"}, response_id="r1")
        await publish({**CREATED, "response": {"model": 5}}, COMPLETED, response_id="r1")
        await publish(done("Let me think"), FILTERED, response_id="r2")
        yield self.processing(await self.read())
        await self.admin.delete(self.keys.state(StreamKey("response", "r1")))  # expires before the marker
        await publish(delta(9, "late", "refusal"), done("another", "refusal"), response_id="r1")
        await publish(delta(9, "late"), done("another"), response_id="r2")
        await publish(CREATED, response_id="r3")  # its state has no parts when the first ones come
        yield self.processing(await self.read())
        for index in range(4):
            await publish({**delta(1, "x"), "output_index": index}, response_id="r3")
        yield self.processing(await self.read())
        for number in range(3):
            await publish(delta(number, "x" * 300), response_id="r4")
        yield self.processing(await self.read())
        await publish(delta(4, "x" * 300), response_id="r4")
        yield self.processing(await self.read())
        await publish(KEEPALIVE, response_id="r5")
        ((stuck, _),) = await self.read("stuck")
        await self.admin.xclaim(self.names.deltas, GROUP, "stuck", 0, [stuck], idle=3_600_000)
        await publish(delta(1, "in time"), response_id="r6")
        await publish(done("in time"), response_id="r6")
        yield self.processing(await self.read())
        await self.admin.xack(self.names.deltas, GROUP, stuck)
        yield self.sweeper.sweep
        async for step in self.other_steps():
            yield step

    async def other_steps(self) -> AsyncIterator[Step]:
        """Yield steps of a worker's periodic tasks, of a relay and of an operator."""
        await self.bench.publish(KEEPALIVE, KEEPALIVE, response_id="r5")
        adopted = await self.read("gone")
        yield self.adopting
        yield self.processing(adopted)
        await self.bench.publish(KEEPALIVE, response_id="r5")
        ((lost, _),) = await self.read("gone")
        await self.admin.xdel(self.names.deltas, lost)
        yield self.claiming
        yield self.tidying
        letters = DeadLetters(self.admin, self.names)
        letter = await anext(each.id async for each in letters.oldest_first())
        yield self.replaying(letter)
        yield self.processing(await self.read())
        yield await self.giving_up()
        yield self.looking_for_spikes

    def processing(self, entries: Sequence[RawEntry]) -> Step:
        """Return the step in which the worker processes a batch."""

        async def process() -> None:
            await self.worker.process(self.worker.builder(entries))

        return process

    async def adopting(self) -> None:
        """Adopt the entries of a worker that does not exist any more."""
        await self.group.adopt("gone")

    async def claiming(self) -> None:
        """Claim pending entries, one of which was trimmed."""
        await self.group.claim(0, "0-0")

    async def tidying(self) -> None:
        """Run the periodic tasks."""
        await self.group.renew([b"0-1"])
        await self.group.leave()
        await self.group.remove_idle_consumers(0)
        await self.group.trim(60_000)
        await KindRetention(self.user, self.keys, {"refusal": 60}, 60).remove_aged()
        await OutputBudget(self.user, self.names, 1 << 20).trim()

    def replaying(self, letter: str) -> Step:
        """Return the step in which an operator replays a dead letter."""

        async def replay() -> None:
            fields = {"event": json.dumps(KEEPALIVE).encode()}
            with unavailable_if_away():
                await DeadLetters(self.user, self.names).replay(letter, fields)

        return replay

    async def giving_up(self) -> Step:
        """Return the step in which a relay stores an alert as undelivered, and has delivered another."""
        await DestinationGroup(self.admin, self.names.alerts, "here").ensure("all")
        read = await read_as(self.admin, self.names.alerts, "relay:here", CONSUMER, 2)
        ref, other = [EntryRef(self.names.alerts, EntryId.parse(entry_id.decode())) for entry_id, _ in read]

        async def give_up() -> None:
            lease = RedisLease(self.user, self.settings.names, "here", "me")
            await lease.acquire(10_000)
            await RedisOutbox(self.user, self.settings.names, "here").give_up(ended(ref, "refused"), FAILURE)
            await RedisOutbox(self.user, self.settings.names, "here").record_delivered([ended(other)])
            await lease.release()

        return give_up

    async def looking_for_spikes(self) -> None:
        """Check for spikes, and raise the alert about one."""
        rates = RedisRates(self.user, self.settings)
        turn = await wait_until(lambda: rates.acquire_leader_lock(1), message="nobody has the turn")
        assert turn is not None
        if not turn.spikes:
            await rates.counted(turn.now_ms)
            await rates.write(
                turn,
                [Change(Subject("model", "m"), alert("deltaloom.refusal.spike", id="spike_1"), begins=True)],
            )

    async def outputs(self) -> dict[str, Any]:
        """Return all outputs of the steps."""
        rates = RedisRates(self.admin, self.settings)
        window = (await rates.counted(await rates.now_ms())).window
        return {
            "texts": sorted(
                (text.id, text.text, text.status, text.integrity) for text in await texts(self.admin, PREFIX)
            ),
            "alerts": sorted((each.type, each.id) for each in await alerts(self.admin, PREFIX)),
            "letters": sorted(letter.error for letter in await dead_letters(self.admin, PREFIX)),
            "counts": await counts(self.admin, PREFIX),
            "rates": {str(subject): count for subject, count in window.items()},
            "undelivered": await self.admin.xlen(self.names.undelivered),
            "deliveries": [each.outcome for each in await deliveries(self.admin, PREFIX)],
            "pending": await self.bench.pending(),
        }


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Run a server for this module alone, since users belong to a server and not to a prefix."""
    with EmbeddedServer(protected=False) as server:
        yield server


@pytest.fixture
async def admin(server: EmbeddedServer) -> AsyncIterator[Redis]:
    """Return a client with all rights, on an empty server, with the test's user reset to all rights."""
    async with Redis.from_url(server.url) as client:
        await client.flushall()
        await _acl(client, "reset", "on", "nopass", "~*", "&*", "+@all")
        yield client


@pytest.fixture
async def user(admin: Redis, server: EmbeddedServer) -> AsyncIterator[Redis]:
    """Return a client of the user with the changing rights."""
    await admin.ping()  # the fixture `admin` has created the user
    async with Redis.from_url(server.url, username=USER, password="any") as client:  # noqa: S106 - the user accepts any password
        yield client


async def _acl(admin: Redis, *rules: str) -> None:
    """Change the rights of the user."""
    await cast("Any", admin).execute_command("ACL", "SETUSER", USER, *rules)


async def refusal(step: Step) -> SetupError | None:
    """Run a step, and return the error if it was refused."""
    try:
        await step()
    except SetupError as error:
        return error
    return None


async def undisturbed(admin: Redis, user: Redis) -> dict[str, Any]:
    """Run all steps without failures, and return the outputs."""
    story = Story(admin, user)
    async for step in story.steps():
        await step()
    outputs = await story.outputs()
    await admin.flushall()
    return outputs


async def test_the_steps_produce_every_kind_of_output(admin: Redis, user: Redis) -> None:
    """The steps produce each kind of output. Otherwise some commands would never be tested."""
    outputs = await undisturbed(admin, user)
    assert len(outputs["texts"]) == 6
    assert {name.partition(":")[0] for name in outputs["counts"]} == {
        "type",
        "left_out",
        "late",
        "contradicted",
        "parts_beyond_limit",
        "lost",
    }
    assert len(outputs["alerts"]) >= 6
    assert len(outputs["letters"]) == 2
    assert (outputs["undelivered"], outputs["pending"]) == (1, {})
    assert outputs["deliveries"] == ["refused", "delivered"]
    assert outputs["rates"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_is_forbidden_for_a_while(admin: Redis, user: Redis, command: str) -> None:
    """Otherwise texts would be acknowledged and not stored, or come out again every second."""
    expected = await undisturbed(admin, user)
    story = Story(admin, user)
    errors: list[SetupError] = []
    async for step in story.steps():
        await _acl(admin, f"-{command}")
        if error := await refusal(step):
            errors.append(error)
        await _acl(admin, "+@all")
        await step()
    assert await story.outputs() == expected
    assert {error.state for error in errors} <= {"NOPERM"}
    assert bool(errors) == (command not in NOT_NEEDED)


def keys_of(story: Story) -> dict[str, str]:
    """Return the keys that scripts write, by a descriptive name."""
    keys, names = story.keys, story.names
    response, part = StreamKey("response", "r1"), PartKey(StreamKey("response", "r1"), 0, 0, "refusal")
    return {
        "input": names.deltas,
        "texts": names.assembled,
        "alerts": names.alerts,
        "letters": names.dead_letters,
        "undelivered": names.undelivered,
        "deliveries": names.deliveries,
        "counts": keys.counts,
        "types": keys.counted_types,
        "fields": keys.counted_fields,
        "open": keys.open,
        "waiting": keys.waiting,
        "state": keys.state(response),
        "marker": keys.marker(response),
        "log": keys.log(part),
        "item": keys.item(part),
        "spikes": keys.spikes,
        "provider-spikes": keys.provider_spikes,
        "turn": keys.spike_turn,
        "lease": names.name("relay:here:lease"),
    }


@pytest.mark.parametrize("name", keys_of(Story(Redis(), Redis())))
async def test_a_key_of_another_type_for_a_while(admin: Redis, user: Redis, name: str) -> None:
    """Otherwise texts would be acknowledged and not stored, or come out again every second."""
    expected = await undisturbed(admin, user)
    story = Story(admin, user)
    errors: list[SetupError] = []
    key = keys_of(story)[name]
    async for step in story.steps():
        was_there = await admin.exists(key)
        if was_there:
            await admin.rename(key, "aside")
        await admin.rpush(key, "of another program")
        if error := await refusal(step):
            errors.append(error)
        await admin.delete(key)
        if was_there:
            await admin.rename("aside", key)
        await step()
    assert await story.outputs() == expected
    assert {(error.state, key in str(error)) for error in errors} == {("WRONGTYPE", True)}


@pytest.mark.parametrize(
    "event",
    [delta(2, "thing", "refusal"), done("Nothing", "refusal"), COMPLETED],
    ids=["a delta with more context", "a closing", "the end"],
)
async def test_a_state_of_another_type_leaves_logs_as_they_are(
    admin: Redis, user: Redis, event: dict[str, Any]
) -> None:
    """A refused commit appends nothing, so a log does not grow while the worker retries the commit."""
    story = Story(admin, user)
    story.worker = story.worker_with(story.settings.model_copy(update={"max_part_fragments": 1000}))
    response = StreamKey("response", "r1")
    state, log = story.keys.state(response), story.keys.log(PartKey(response, 0, 0, "refusal"))
    await ConsumerGroup(admin, story.keys, "one").ensure()
    await story.bench.publish(delta(1, "No", "refusal"), response_id="r1")
    await story.processing(await story.read())()
    await admin.rename(state, "aside")
    await admin.rpush(state, "of another program")
    before = await admin.get(log)
    await story.bench.publish(delta(1, "No", "refusal"), response_id="r0")
    await story.bench.publish(event, response_id="r1", tenant="t")
    step = story.processing(await story.read())
    error = await refusal(step)
    assert error is not None
    assert (error.state, state in str(error)) == ("WRONGTYPE", True)
    assert await admin.get(log) == before
    assert not await admin.exists(story.keys.log(PartKey(StreamKey("response", "r0"), 0, 0, "refusal")))
    await admin.delete(state)
    await admin.rename("aside", state)
    await step()
    assert await story.bench.pending() == {}


@pytest.mark.parametrize("trouble", ["a state of another type", "a missing right"])
async def test_a_letter_about_a_response_that_cannot_be_recorded_waits(
    admin: Redis, user: Redis, trouble: str
) -> None:
    """A refused commit writes no letter, no count and no state. Otherwise a retry would write some twice.

    The commit changes no response, as after a part beyond the limit came with fragments for known parts only.
    """
    story = Story(admin, user)
    await ConsumerGroup(admin, story.keys, "one").ensure()
    await story.bench.publish(KEEPALIVE, KEEPALIVE, response_id="r1")
    read = await story.read()
    ids = [EntryId.parse(entry.id.decode()) for entry in read]
    letter = DeadLetter(
        reason="oversized",
        error="",
        stream=story.names.deltas,
        entry_id="1-0",
        deliveries=1,
        failed_at=NOW,
        entry="{}",
    )
    response = StreamKey("response", "r1")
    commit = Commit([entry.id for entry in read], [each.ms for each in ids], [each.seq for each in ids])
    commit.dead_letters.append((0, letter))
    commit.crowded[response] = 1, letter
    commit.counts[BEYOND_LIMIT] = [1]
    storage, state = RedisStorage(user, story.keys, story.settings), story.keys.state(response)
    if trouble == "a missing right":
        await _acl(admin, "-pexpire")
    else:
        await admin.rpush(state, "of another program")
    before = await admin.exists(state)
    with pytest.raises(SetupError, match=f"{state}|pexpire"):
        await storage.commit(commit)
    assert (await dead_letters(admin, PREFIX), await counts(admin, PREFIX)) == ([], {})
    assert await admin.exists(state) == before
    await admin.delete(state)
    await _acl(admin, "+@all")
    committed = await storage.commit(commit)
    assert (committed.acknowledged, committed.reported_crowds) == (2, [1])
    assert len(await dead_letters(admin, PREFIX)) == 2
    assert (await counts(admin, PREFIX))[BEYOND_LIMIT] == 1
