"""Measure the delay that a tap adds to a chunk, beside a plain aiohttp proxy and a direct connection.

`python -m bench.tap_delays [--pairs 30] [--streams 100] [--rate 50] [--seconds 2]` sends streams through each
in turn. An upstream in this process writes the time into each chunk, and a client in this process subtracts
it. The ratios are those of one round; nothing is published, since the tap's Redis is away.

Figures need a quiet machine: the first line has the load at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

_PATH: Final = "/v1/chat/completions"
_PLAIN: Final = "plain aiohttp"
_READY_SECONDS: Final = 60.0


async def _send(rate: float, seconds: float, request: web.BaseRequest) -> web.StreamResponse:
    """Answer with chunks that have their time."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await response.write(b'data: {"t":%d,"choices":[]}\n\n' % time.monotonic_ns())
    return response


async def _pass_on(url: str, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
    """Pass a request on as the simplest proxy does."""
    async with session.post(url + request.raw_path, data=await request.read()) as received:
        response = web.StreamResponse(headers={"Content-Type": received.headers["Content-Type"]})
        await response.prepare(request)
        async for data in received.content.iter_any():
            await response.write(data)
        return response


@asynccontextmanager
async def _serving(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], port: int
) -> AsyncIterator[None]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, backlog=1024).start()
        yield
    finally:
        await runner.cleanup()


async def serve_plainly(url: str, port: int) -> None:
    """Run the plain proxy until killed."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await _pass_on(url, session, request)

        async with _serving(handle, port):
            await asyncio.Event().wait()


@asynccontextmanager
async def _process(port: int, *command: str, **settings: str) -> AsyncIterator[str]:
    """Run a program, and yield its URL once it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env={**os.environ, **settings}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    break
                await asyncio.sleep(0.1)
        yield f"http://{HOST}:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _delays(url: str, streams: int) -> list[float]:
    """Return the delays of all chunks of some streams at once, in milliseconds."""
    found: list[float] = []

    async def one(session: aiohttp.ClientSession) -> None:
        async with session.post(url + _PATH, data=b"{}") as response:
            async for line in response.content:
                if line.startswith(b"data: "):
                    sent = int(line[11 : line.index(b",")])
                    found.append((time.monotonic_ns() - sent) / 1e6)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(streams)))
    return sorted(found)


def _line(name: str, values: Sequence[float], unit: str) -> str:
    median = statistics.median(values)
    return f"{name:34} {median:8.2f} ({min(values):.2f} to {max(values):.2f}) {unit}"


async def measure(options: argparse.Namespace) -> list[str]:
    """Return the lines of the result."""
    port, plain, tap = free_port(), free_port(), free_port()
    upstream = f"http://{HOST}:{port}"
    figures: dict[str, list[tuple[float, float]]] = {}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await _send(options.rate, options.seconds, request)

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = Path(folder) / "upstreams.toml"
        file.write_text(f'[upstreams.up]\nurl = "{upstream}"\n')
        await stack.enter_async_context(_serving(answer, port))
        settings = {
            "DELTALOOM_TAP_LISTEN": f"{HOST}:{tap}",
            "DELTALOOM_TAP_UPSTREAMS": str(file),
            "REDIS_URL": f"redis://{HOST}:1",
        }
        plainly = ("-m", "bench.tap_delays", "--serve", upstream, str(plain))
        urls = {
            "direct": upstream,
            _PLAIN: await stack.enter_async_context(_process(plain, *plainly)),
            "tap": await stack.enter_async_context(_process(tap, "-m", "service", "tap", **settings)) + "/up",
        }
        for number in range(options.pairs):
            for name in list(urls) if number % 2 == 0 else reversed(urls):
                delays = await _delays(urls[name], options.streams)
                at = delays[len(delays) // 2], delays[round((len(delays) - 1) * 0.99)]
                figures.setdefault(name, []).append(at)
    lines = [f"load {os.getloadavg()[0]:.1f}, {options.pairs} rounds, {options.streams} streams"]
    for name, pairs in figures.items():
        lines += [_line(f"{name}, p50", [p50 for p50, _ in pairs], "ms")]
        lines += [_line(f"{name}, p99", [p99 for _, p99 in pairs], "ms")]
    both = list(zip(figures["tap"], figures[_PLAIN], strict=True))
    lines += [_line("tap / plain, p50", [ours[0] / other[0] for ours, other in both], "")]
    lines += [_line("tap / plain, p99", [ours[1] / other[1] for ours, other in both], "")]
    return lines


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="python -m bench.tap_delays", description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50, help="chunks a second of a stream")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--serve", nargs=2, metavar=("URL", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve_plainly(options.serve[0], int(options.serve[1])))
        return
    sys.stdout.write("\n".join(asyncio.run(measure(options))) + "\n")


if __name__ == "__main__":
    main()
