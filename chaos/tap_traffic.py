"""Traffic through taps: an upstream whose answers are known, and clients that compare what they get."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web

from deltaloom.dialects import Translator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_PATH: Final = "/v1/chat/completions"
_FIELDS: Final = ("reasoning_content", "refusal", "content")
_MOST_WORDS: Final = 120
_BROKEN: Final = 0.1
"""Share of the answers that the upstream breaks off."""
_LONGEST_PAUSE: Final = 0.03
_ANSWER_SECONDS: Final = 60.0
"""Maximum seconds for an answer: no fault lasts as long."""
_RETRY: Final = 0.05


class Answer:
    """An answer of the upstream, which its number and the seed decide.

    Args:
        seed: seed of the run.
        number: number of the answer.
    """

    def __init__(self, seed: str, number: int) -> None:
        self.number = number
        self.chance = random.Random(f"{seed}:{number}")
        self.texts: dict[str, str] = {}
        """Whole text of each field."""
        chunks = []
        for place in range(self.chance.randint(1, _MOST_WORDS)):
            name = self.chance.choice(_FIELDS)
            word = f"<{number}.{place}>" + "é" * self.chance.randrange(20)
            self.texts[name] = self.texts.get(name, "") + word
            chunks.append(self._chunk({name: word}))
        chunks += [self._chunk({}, "stop"), b"data: [DONE]\n\n"]
        self.is_broken = self.chance.random() < _BROKEN
        """True if the upstream breaks it off."""
        self.pieces = chunks[: self.chance.randrange(len(chunks) - 2)] if self.is_broken else chunks
        self.body = b"".join(self.pieces)

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({"id": f"c{self.number}", "choices": [choice]}).encode() + b"\n\n"

    @cached_property
    def event_count(self) -> int:
        """The number of events that its whole copy has. Of an answer without a byte, nothing is published."""
        if not self.body:
            return 0
        translator = Translator(path=_PATH, response_id="r")
        events = translator.feed(self.body)
        return len(events + translator.end("interrupted" if self.is_broken else "complete"))


@asynccontextmanager
async def upstream(seed: str) -> AsyncIterator[str]:
    """Run the upstream, and yield its URL."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        found = Answer(seed, json.loads(await request.read())["number"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):  # the tap is killed
            for piece in found.pieces:
                await response.write(piece)
                await asyncio.sleep(found.chance.uniform(0, _LONGEST_PAUSE))
        if found.is_broken and request.transport is not None:
            request.transport.close()  # without the last chunk
        return response

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class TapLife:
    """A process of a tap, from its start to its end, and what clients got from it."""

    name: str
    is_listening: bool = False
    is_killed: bool = False
    is_stopping: bool = False
    answers: list[Answer] = field(default_factory=list)
    received: int = 0
    """Bytes of bodies that clients got."""
    books: dict[str, Any] | None = None
    """Books of the process; None if it was killed."""


class Clients:
    """Clients that send one request after the other through taps.

    Args:
        seed: seed of the run.
        taps: returns the current process of each tap, by port.
    """

    def __init__(self, seed: str, taps: Callable[[], dict[int, TapLife]]) -> None:
        self._seed = seed
        self._taps = taps
        self._next = 0
        self.found: list[str] = []
        """Differences that clients saw."""
        self.broken_with_tap = 0
        """Answers that broke off because their tap was killed."""
        self.refused = 0
        """Requests that no tap took, because it was starting, stopping or killed."""

    async def go_on(self, until: float) -> None:
        """Send requests until a time of the event loop's clock."""
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), timeout=timeout, auto_decompress=False
        ) as session:
            while loop.time() < until:
                answer = Answer(self._seed, self._next)
                self._next += 1
                port, life = random.Random(f"{self._seed}:tap:{answer.number}").choice(
                    list(self._taps().items())
                )
                await self._call(session, port, life, answer)

    async def _call(self, session: aiohttp.ClientSession, port: int, life: TapLife, answer: Answer) -> None:
        """Send a request, and compare the answer."""
        got, has_begun, was_listening = b"", False, life.is_listening
        error = "whole"
        try:
            async with session.post(
                f"http://127.0.0.1:{port}/up{_PATH}",
                json={"number": answer.number},
                headers={"X-Deltaloom-Reference": str(answer.number)},
            ) as response:
                has_begun = True
                life.answers.append(answer)
                if response.status != web.HTTPOk.status_code:
                    self.found.append(f"answer {answer.number}: status {response.status}")
                while data := await response.content.readany():
                    got += data
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            error = type(failure).__name__
        life.received += len(got)
        if not has_begun and (life.is_killed or life.is_stopping or not was_listening):
            self.refused += 1
            await asyncio.sleep(_RETRY)
        elif life.is_killed and answer.body.startswith(got):
            self.broken_with_tap += error != "whole"
        elif (got, error != "whole") != (answer.body, answer.is_broken):
            self.found.append(
                f"answer {answer.number} of {life.name}: {len(got)} of {len(answer.body)} bytes, {error}"
            )
