"""Let the translated streams pass through a tap, as those of a client that only changed its URL.

An upstream in this process sends the bytes in the rhythm of their model, a client in this process requests
them from the tap, and compares what it gets. The tap's process publishes the copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from aiohttp import web

from deltaloom.dialects import Translator
from demo.pacing import publications
from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from demo.clock import Clock
    from demo.pacing import Publication
    from demo.progress import Progress
    from demo.stream import Stream

_PATHS: Final = {
    "openai.chat": "/v1/chat/completions",
    "anthropic.messages": "/v1/messages",
    "gemini.generate_content": "/v1beta/models/demo:streamGenerateContent",
}
"""Path of each dialect at its provider."""


class PacedFrame(NamedTuple):
    """An event of a provider's stream, with its time at pace 1 and the entries that it leads to."""

    at: float
    content: bytes
    publications: Sequence[Publication]


def frames(stream: Stream) -> Iterator[PacedFrame]:
    """Yield the events of a provider's stream, each at the time of the last of its entries."""
    translator = Translator(stream.plan.dialect, response_id=stream.response_id)
    waiting = publications(stream)
    at = stream.plan.begins
    contents = [each + b"\n\n" for each in stream.body.split(b"\n\n") if each.strip()]
    for number, content in enumerate(contents, 1):
        count = len(waiting) if number == len(contents) else len(translator.feed(content))
        made, waiting = waiting[:count], waiting[count:]
        at = made[-1].at if made else at
        yield PacedFrame(at, content, made)


class TapStage:
    """The upstream of a tap, and its clients. Connections are possible from the start.

    Args:
        streams: all streams; those with bytes of a provider pass through the tap.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = [stream for stream in streams if stream.body]
        self.wrong: list[str] = []
        """Differences between what the upstream sent and what the clients got."""
        self._by_path = {_PATHS[stream.plan.dialect or ""]: stream for stream in self.streams}
        self._socket = socket.create_server((HOST, 0))
        self._port = free_port()

    @property
    def response_ids(self) -> dict[str, str]:
        """Return the id of each stream in the programme, by tenant: the tap makes others."""
        return {stream.name: stream.response_id for stream in self.streams}

    def configure(self, file: Path) -> dict[str, str]:
        """Write the tap's `upstreams.toml`, and return the settings of its process."""
        port = self._socket.getsockname()[1]
        file.write_text(f'[upstreams.models]\nurl = "http://{HOST}:{port}"\n', encoding="utf-8")
        return {"DELTALOOM_TAP_LISTEN": f"{HOST}:{self._port}", "DELTALOOM_TAP_UPSTREAMS": str(file)}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def is_listening(self) -> bool:
        """Return True once the tap accepts connections."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, self._port)
            writer.close()
            return True
        return False

    @asynccontextmanager
    async def sending(self, progress: Progress, clock: Clock) -> AsyncIterator[None]:
        """Answer the tap's requests within the block."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            stream = self._by_path[request.path]
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for frame in frames(stream):
                await asyncio.sleep(clock.until(frame.at))
                await response.write(frame.content)
                for publication in frame.publications:
                    progress.published(stream, publication, "", clock.now)
            return response

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            yield
        finally:
            await runner.cleanup()

    async def request(self, stream: Stream, progress: Progress, clock: Clock) -> None:
        """Request a stream from the tap at its time, and compare the bytes."""
        await asyncio.sleep(clock.until(stream.plan.begins))
        path = _PATHS[stream.plan.dialect or ""]
        headers = {"X-Deltaloom-Tenant": stream.name}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{HOST}:{self._port}/models{path}", json={}, headers=headers) as response,
        ):
            got = await response.read()
        if got != stream.body:
            self.wrong.append(f"{stream.name}: its client got other bytes through the tap")
        progress.tracks[stream.response_id].all_sent = True
