"""Honest load at a steady rate, and hostile load next to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from chaos.ending import end_tasks
from chaos.generator import make_response
from chaos.producer import Producer
from hostile.attacker import Attacker
from hostile.generators import GENERATORS, RETRY_AFTER, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.processes import Server
    from deltaloom.streams import Partitions
    from hostile.entry import Entry
    from hostile.options import Options
    from hostile.probe import Probe
    from hostile.verdict import Verdict
    from hostile.victims import Victims

_PROBE_AFTER = 12.0
_APART = 3.0
"""Seconds between the starts of two generators, so that their worst entries do not coincide."""


class Load:
    """The producers of a run.

    Args:
        options: numbers and rates of the producers.
        server: server to store the entries on.
        partitions: names of the inputs.
        verdict: receives each entry.
        victims: honest responses that hostile entries refer to.
        over: set if the run has to end early.
    """

    def __init__(
        self,
        options: Options,
        server: Server,
        partitions: Partitions,
        verdict: Verdict,
        victims: Victims,
        over: asyncio.Event,
    ) -> None:
        self._options = options
        self._server = server
        self._partitions = partitions
        self._verdict = verdict
        self._victims = victims
        self._over = over
        self._producers = {
            names.deltas: [
                self._producer(place * options.producers + n, names.deltas) for n in range(options.producers)
            ]
            for place, names in enumerate(partitions.all)
        }
        self.seconds = 0.0
        """Seconds for which hostile entries were sent."""

    def _producer(self, number: int, stream: str) -> Producer:
        make = partial(make_response, sound=True)
        return Producer(number, self._options.seed, self._server, stream, self._verdict, make=make)

    def safe_id(self, stream: str) -> str:
        """Return the entry of a stream up to which no producer has to look again after a lost reply."""
        ids = (producer.last_id for producer in self._producers[stream])
        return min(ids, key=lambda each: tuple(map(int, each.split("-"))))

    async def publish(self, begin_hostile: Callable[[], None], probe: Probe | None) -> None:
        """Publish honest entries all the time, and hostile ones after the warm-up.

        `begin_hostile` is called at the end of the warm-up.
        """
        options = self._options
        ends_at = float("inf")

        def ends() -> bool:
            return time.monotonic() >= ends_at or self._over.is_set()

        every = [producer for some in self._producers.values() for producer in some]
        rate = options.honest / len(every)
        publishing = asyncio.gather(*(each.run(_steady(rate, ends), ends) for each in every))
        try:
            await asyncio.wait({publishing}, timeout=options.warm_up)
            begin_hostile()
            began = time.monotonic()
            ends_at = began + options.seconds  # from here, since a busy machine may begin late
            await self._attack(ends, probe)
            self.seconds = time.monotonic() - began
            await publishing
        finally:
            await end_tasks(publishing)

    async def _attack(self, ends: Callable[[], bool], probe: Probe | None) -> None:
        names = [name for name in self._options.generators if name != RETRY_AFTER]

        apart = min(_APART, self._options.seconds / 2 / max(1, len(names)))
        waited = apart * (len(names) - 1) / 2
        # Rate per generator for the remaining time, so that late starts do not reduce the total.
        rate = self._options.rate * self._options.seconds / (self._options.seconds - waited)

        async def attack(place: int, name: str) -> None:
            await asyncio.sleep(place * apart)
            try:
                await self._attacker(name, rate).run(ends)
            except (RedisError, OSError) as error:
                self._verdict.violate("not settled", f"the server did not take an entry: {error}")

        async def probing() -> None:
            if probe is not None:
                await asyncio.sleep(_PROBE_AFTER)
                await probe.present(ends)

        async def until_the_end() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._options.seconds)

        await asyncio.gather(probing(), until_the_end(), *itertools.starmap(attack, enumerate(names)))

    def _attacker(self, name: str, rate: float) -> Attacker:
        generator, options = GENERATORS[name], self._options
        entries = generator.entries(options.seed, self._victims)
        ledger = self._verdict.ledger
        share = generator.share / WHOLE
        if len(options.generators) == 1:
            share = min(1, generator.factor * share)
        return Attacker(generator, entries, self._server, self._stream_of(), ledger, rate * share)

    def _stream_of(self) -> Callable[[Entry], str]:
        """Return a function of an entry that gives its input: that of its response, or each in turn."""
        every = self._partitions.all
        turns = itertools.cycle(every)

        def stream_of(entry: Entry) -> str:
            if entry.near is None:
                return next(turns).deltas
            producer = int(entry.near.split("-")[-2])
            return every[producer // self._options.producers].deltas

        return stream_of


def _steady(rate: float, ends: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that allows this number of new responses per second."""
    begun = 0
    began = time.monotonic()

    def may_begin() -> bool:
        nonlocal begun
        if ends() or begun > rate * (time.monotonic() - began):
            return False
        begun += 1
        return True

    return may_begin
