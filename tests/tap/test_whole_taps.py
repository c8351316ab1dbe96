"""Whole taps: their settings of addresses, certificates and tokens, and their copier's process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

from service.settings import SettingsError
from tap import copier_process
from tap.copier_process import CopierProcess
from tap.copy_pipe import CopyPipe
from tap.tap_app import TapApp
from tap.upstreams import Upstream, Upstreams
from tests import certificates
from tests.tap.running import settings_of
from tests.tap.wire import Call, exchange, request, upstream
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tap.copy_frames import CopierSettings

SETTINGS: CopierSettings = {
    "redis_url": "redis://127.0.0.1:1",
    "redis_mode": "standalone",
    "prefix": "away",
    "partitions": 1,
    "budget": 64 * 1024,
    "max_event_bytes": 1024,
}

REPORTED = r"""b'{"seen": 3, "failures": {"%s": 1}}\n' % (b"x" * 100_000)"""
REPORTER = f"""
import socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
end.sendall({REPORTED})
while end.recv(65536):
    pass
"""
"""A process that reports more than one read takes, and ends when the pipe is closed."""


def tap_of(url: str = "http://127.0.0.1:1", **given: Any) -> TapApp:
    """Return a tap; its Redis is away unless another one is given."""
    settings = settings_of(**{"redis_url": SETTINGS["redis_url"], "tap_shutdown_timeout": 5} | given)
    return TapApp(settings, Upstreams({"up": Upstream(url=url)}))


async def test_a_tap_serves_tls_and_takes_copies_with_a_token(
    redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Pass a request over TLS, and take a stream at the second port from a client with the token."""
    made = certificates.make(tmp_path)
    token = tmp_path / "token"
    token.write_text("secret\n")

    async def answer(call: Call) -> None:
        await call.stream([b"data: [DONE]\n\n"])

    async with upstream(answer) as up:
        app = tap_of(
            up.url,
            redis_url=redis_url,
            prefix=prefix,
            tap_tls_certificate=made.certificate,
            tap_tls_key=made.key,
            tap_ingest="127.0.0.1:0",
            tap_ingest_token_file=token,
        )
        assert app.not_ready() == ["starting"]
        await app.start()
        try:
            assert app.not_ready() == []
            trusting = ssl.create_default_context(cafile=str(made.certificate))
            assert (await exchange(app.port, request(), trusting)).body == b"data: [DONE]\n\n"
            stream = request("/ingest/openai.chat", body=b"data: [DONE]\n\n")
            assert (await exchange(app.ingest_port, stream)).status == 401
            stream = request("/ingest/openai.chat", "Authorization: Bearer secret", body=b"data: [DONE]\n\n")
            assert (await exchange(app.ingest_port, stream)).status == 200
            status = await app.status()
            assert (status["requests"], status["bytes_copied"]) == (1, 28)
        finally:
            await app.stop()
        assert app.not_ready() == ["stopping"]


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    """Name the setting and the file before anything is started; such a tap can still be stopped."""
    file = tmp_path / "certificate.pem"
    if content is not None:
        file.write_text(content)
    app = tap_of(tap_tls_certificate=file, tap_tls_key=file)
    with pytest.raises(SettingsError, match=r"DELTALOOM_TAP_TLS_CERTIFICATE=.*certificate\.pem"):
        await app.start()
    assert not app.started
    await app.stop()


async def test_a_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Name the setting and the file, rather than take copies from anybody."""
    app = tap_of(tap_ingest="127.0.0.1:0", tap_ingest_token_file=tmp_path / "none")
    with pytest.raises(SettingsError, match=r"DELTALOOM_TAP_INGEST_TOKEN_FILE: the file .*none"):
        await app.start()
    await app.stop()


@pytest.mark.parametrize("setting", ["tap_listen", "tap_ingest"])
async def test_an_address_that_is_taken_is_named(setting: str) -> None:
    """Name the setting and the address, and end what was started before."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        app = tap_of(**{setting: address})
        with pytest.raises(SettingsError, match=f"DELTALOOM_{setting.upper()}='{address}' cannot be used"):
            await app.start()
        await app.stop()
    assert not app.pipe.is_connected


def running(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Let the next copiers be this program, which gets the descriptor as its last argument."""
    monkeypatch.setattr(copier_process, "command_of", lambda end: (*command, str(end)))
    monkeypatch.setattr(copier_process, "FIRST_PAUSE", 0.01)


async def test_a_copier_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop within the given time although the process ignores the end of its pipe."""
    running(monkeypatch, sys.executable, "-c", "import time; time.sleep(600)")
    pipe = CopyPipe(64 * 1024)
    copier = CopierProcess(pipe, SETTINGS)
    await copier.start()
    process = copier._process  # noqa: SLF001 - the process whose end is checked
    assert process is not None
    assert pipe.is_connected
    await copier.stop(0.05)
    assert process.returncode == -signal.SIGKILL
    assert (pipe.is_connected, copier.restarts) == (False, 0)


async def test_the_books_have_what_a_killed_copier_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count events that waited as dropped, and bytes that were never reported as taken as lost."""
    report: dict[str, Any] = {"taken_bytes": 3, "open": 1, "seen": 7, "published": 4, "merged": 1}
    report |= {"dropped": {}, "waiting": 2}
    program = REPORTER.replace(REPORTED, repr(json.dumps(report).encode() + b"\n"))
    running(monkeypatch, sys.executable, "-c", program)
    pipe = CopyPipe(64 * 1024)
    copier = CopierProcess(pipe, SETTINGS)
    await copier.start()
    body = pipe.begin({"translation": {}, "context": {}})
    body.piece(b"x" * 10)
    await wait_until(lambda: copier.figures().get("seen") and pipe.sent_bytes, message="it has the bytes")
    running(monkeypatch, "/none/program")
    copier.kill()
    await wait_until(lambda: not pipe.is_connected, message="it is gone")
    await copier.stop(30)
    ended = {"open": 0, "waiting": 0, "waiting_bytes": 0, "dropped": {"copier_gone": 2}}
    assert copier.figures() == report | ended
    assert (pipe.sent_bytes, copier.lost_bytes, pipe.dropped_bytes.total()) == (10, 7, 0)


async def test_a_copier_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve without a copier while there is none, and with one as soon as it starts."""
    running(monkeypatch, "/none/program")
    pipe = CopyPipe(64 * 1024)
    copier = CopierProcess(pipe, SETTINGS)
    await copier.start()
    assert (pipe.is_connected, copier.figures()) == (False, {})
    running(monkeypatch, sys.executable, "-c", REPORTER)
    await wait_until(lambda: pipe.is_connected, message="a copier has started")
    assert copier.restarts >= 1
    await copier.stop(30)
    assert not pipe.is_connected


async def test_a_tap_stops_while_it_waits_to_start_a_copier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no other process once the tap stops, and do not wait for the time of the next attempt."""
    running(monkeypatch, "/none/program")
    monkeypatch.setattr(copier_process, "FIRST_PAUSE", 600)
    copier = CopierProcess(CopyPipe(64 * 1024), SETTINGS)
    await copier.start()
    async with asyncio.timeout(20):
        await copier.stop(30)
    assert copier.restarts == 1


async def test_a_report_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join the parts of a report that is longer than one read."""
    running(monkeypatch, sys.executable, "-c", REPORTER)
    copier = CopierProcess(CopyPipe(64 * 1024), SETTINGS)
    await copier.start()
    await wait_until(lambda: copier.figures().get("seen") == 3, message="the report has come")
    assert copier.figures()["failures"] == {"x" * 100_000: 1}
    await copier.stop(30)


def logged(log: Path, event: str) -> list[dict[str, Any]]:
    """Return the complete lines of a log with this event."""
    *lines, _ = log.read_text().split("\n")
    return [json.loads(line) for line in lines if f'"{event}"' in line]


async def test_one_process_needs_neither_siblings_nor_metrics(
    redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Run the command alone, without an address for metrics, until SIGTERM; it may open enough files."""

    async def answer(call: Call) -> None:
        await call.stream([b"data: [DONE]\n\n"])

    log, file = tmp_path / "log", tmp_path / "upstreams.toml"
    async with upstream(answer) as up:
        file.write_text(f'[upstreams.up]\nurl = "{up.url}"\n')
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DELTALOOM_HTTP"},
            "REDIS_URL": redis_url,
            "DELTALOOM_PREFIX": prefix,
            "DELTALOOM_TAP_LISTEN": "127.0.0.1:0",
            "DELTALOOM_TAP_UPSTREAMS": str(file),
        }
        with log.open("wb") as opened:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", sys.executable, "-m", "service", "tap"),
                env=environment,
                stderr=opened,
            )
        try:
            (started,) = await wait_until(lambda: logged(log, "tap started"), 90, message="it listens")
            assert (await exchange(started["port"], request())).body == b"data: [DONE]\n\n"
            allowed, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            needed = 2 * 2048 + 200
            assert allowed == (needed if hard == resource.RLIM_INFINITY else min(hard, needed))
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    (stopped,) = logged(log, "tap stopped")
    assert stopped["bytes_to_clients"] == 14
