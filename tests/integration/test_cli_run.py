"""Tests of `deltaloom run`: a worker with an embedded server."""

from __future__ import annotations

import re
import shlex
import signal
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import free_port
from tests.service.cli.command import TIMEOUT, deltaloom, deltaloom_process, environment, running
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.cli.command import Running


@pytest.fixture
def own_port(tmp_path: Path) -> None:
    """Reserve a port for this test's server. The default port may be taken by another test at a restart."""
    folder = tmp_path / ".deltaloom"
    folder.mkdir()
    (folder / "port").write_text(f"{free_port()}")


def password(folder: Path) -> str:
    """Return the password of the embedded server in a data folder, as the suggested commands read it."""
    return (folder / "password").read_text().strip()


def with_password(address: str, folder: Path) -> str:
    """Return an embedded server's URL with the password from a working folder."""
    return address.replace("://", f"://:{password(folder / '.deltaloom')}@")


def lines_to_try(run: Running, address: str) -> list[str]:
    """Return the suggested commands; the first one without the address that a shell would expand."""
    url = address.replace("://", "://default:$(cat .deltaloom/password)@")
    lines = [line.removeprefix("  ") for line in run.stderr.splitlines() if line.startswith("  ")]
    return [line.removeprefix(f'export REDIS_URL="{url}"').strip() for line in lines]


async def started(run: Running) -> str:
    """Wait until the worker has started, and return the server's address without its password."""
    await wait_until(lambda: "worker started" in run.stderr, TIMEOUT, message="the worker starts")
    address = re.search(r"redis://\S+", run.stderr)
    assert address
    return address[0]


@pytest.mark.usefixtures("own_port")
async def test_the_lines_to_try_work(tmp_path: Path) -> None:
    """The commands that `run` suggests work as printed, without showing the password."""
    env = environment()
    with running("run", env=env, cwd=tmp_path) as run:
        url = await started(run)
        assert password(tmp_path / ".deltaloom") not in run.stderr
        lines = lines_to_try(run, url)
        url = with_password(url, tmp_path)
        assert len(lines) == 4
        assert lines[0] == ""
        assert "-m service tail alerts" in lines[1]
        arguments = shlex.split(
            next(line for line in lines if "publish" in line).partition(" -m service ")[2]
        )
        done = deltaloom(*arguments, env=environment(url), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        async with Redis.from_url(url) as client:

            async def finished() -> bool:
                return await client.xlen("deltaloom:alerts") == 2

            await wait_until(finished, TIMEOUT, message="both alerts are raised")
        assert run.end(signal.SIGINT) == 0
        assert "Traceback" not in run.stderr
    again = deltaloom("tail", "alerts", env=environment(url))
    assert (again.returncode, again.stdout) == (1, ""), "the server is stopped with the worker"


@pytest.mark.usefixtures("own_port")
async def test_several_processes_and_partitions(tmp_path: Path) -> None:
    """`run` uses the settings for processes and partitions, and repeats them in the suggested commands."""
    settings = {"DELTALOOM_PROCESSES": "2", "DELTALOOM_PARTITIONS": "3", "DELTALOOM_PREFIX": "loom"}
    with running("run", env=environment(**settings), cwd=tmp_path) as run:
        url = await started(run)
        lines = lines_to_try(run, url)
        url = with_password(url, tmp_path)
        assert len(lines) == 4
        assert lines[0] == "DELTALOOM_PREFIX=loom DELTALOOM_PARTITIONS=3"
        publish = shlex.split(lines[-1].partition(" -m service ")[2])
        env = environment(url, "loom", DELTALOOM_PARTITIONS="3")
        assert deltaloom(*publish, env=env, cwd=tmp_path).returncode == 0
        tail = deltaloom("tail", "alerts", "--from-start", "--count", "2", env=env)
        assert tail.returncode == 0, tail.stderr
        await wait_until(lambda: run.stderr.count("worker started") == 2, TIMEOUT, message="both start")
        assert run.end(signal.SIGINT) == 0
        assert run.stderr.count("worker stopped") == 2
        assert "Traceback" not in run.stderr
    again = deltaloom("tail", "alerts", env=env)
    assert (again.returncode, again.stdout) == (1, ""), "the server is stopped with the workers"


def test_wrong_alerts_are_reported_before_the_server_starts(tmp_path: Path) -> None:
    """Otherwise the worker would end after it has said how to try it."""
    table = '[destinations.team]\ntype = "webhook"\nurl = "https://example.com"\nsecret_env = "UNSET"\n'
    (tmp_path / "alerts.toml").write_text(table)
    done = deltaloom("run", env=environment(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("alerts.toml:4: ")
    assert "Try it" not in done.stderr
    assert not (tmp_path / ".deltaloom").exists()


@pytest.mark.usefixtures("own_port")
async def test_it_survives_a_restart(tmp_path: Path) -> None:
    """Data and address survive a restart."""
    env = environment()
    with running("run", env=env, cwd=tmp_path) as run:
        url = await started(run)
        async with Redis.from_url(with_password(url, tmp_path)) as client:
            await client.set("kept", "1")
        assert run.end(signal.SIGTERM) == 0
    with running("run", env=env, cwd=tmp_path) as run:
        assert await started(run) == url
        async with Redis.from_url(with_password(url, tmp_path)) as client:
            assert await client.get("kept") == b"1"
        assert run.end(signal.SIGINT) == 0
    assert (tmp_path / ".deltaloom" / "appendonlydir").is_dir()


@pytest.mark.usefixtures("own_port")
async def test_one_a_folder(tmp_path: Path) -> None:
    """A second `run` in one folder is refused with the address of the first; in another folder it starts."""
    env = environment()
    with running("run", env=env, cwd=tmp_path) as run:
        url = await started(run)
        second = deltaloom_process("run", env=env, cwd=tmp_path)
        assert (second.returncode, second.stdout) == (1, "")
        assert len(second.stderr.splitlines()) == 1
        assert url in second.stderr
        other = tmp_path / "another folder"
        with running("run", "--folder", str(other), env=env, cwd=tmp_path) as elsewhere:
            assert await started(elsewhere) != url
            assert elsewhere.end(signal.SIGTERM) == 0
        assert run.end(signal.SIGTERM) == 0


@pytest.mark.usefixtures("own_port")
async def test_a_killed_one_can_be_started_again(tmp_path: Path) -> None:
    """`run` can be started again after `kill -9`, which leaves its server behind."""
    env = environment()
    with running("run", env=env, cwd=tmp_path) as run:
        url = await started(run)
        assert run.end(signal.SIGKILL) != 0
    with running("run", env=env, cwd=tmp_path) as run:
        assert await started(run) == url
        assert run.end(signal.SIGTERM) == 0


async def test_on_a_server_that_is_there(tmp_path: Path) -> None:
    """`run` uses `REDIS_URL` instead of an embedded server, and never prints its password."""
    with EmbeddedServer(protected=False) as server:
        url = server.url.replace("redis://", "redis://default:s3cret@")
        async with Redis.from_url(server.url) as client:
            await client.acl_setuser("default", enabled=True, nopass=False, passwords=["+s3cret"])
        with running("run", env=environment(url), cwd=tmp_path) as run:
            assert await started(run) == server.url
            assert "s3cret" not in run.stderr
            assert run.end(signal.SIGINT) == 0
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a local folder is listed at once
