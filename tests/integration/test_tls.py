"""Tests of a worker and the commands on a server that accepts only TLS, with a user of their own."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from embedded.free_ports import free_port
from tests import certificates
from tests.cluster_servers import SLOTS
from tests.sentinel_servers import SERVICE
from tests.service.cli.command import deltaloom, environment
from tests.tls_servers import running_with_tls
from tests.waiting import wait_until
from tests.workers import beginning_workers, running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.certificates import Certificate
    from tests.tls_servers import TlsNode

PASSWORD = "workers-only"  # noqa: S105 - the server exists for one test
USER = f"worker on >{PASSWORD} ~deltaloom:* +@all -@admin"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Return the server's certificate, which is also its CA's."""
    return certificates.make(made(tmp_path / "its"))


@pytest.fixture
async def server(tmp_path: Path, certificate: Certificate) -> AsyncIterator[TlsNode]:
    """Run a server with a user besides the default one."""
    async with running_with_tls(tmp_path / "server", certificate, save="", user=USER) as node:
        yield node


def made(folder: Path) -> Path:
    """Create the folder, and return it."""
    folder.mkdir()
    return folder


def url_of(server: TlsNode, query: str = "", host: str = "127.0.0.1") -> str:
    """Return the server's URL as an operator writes it."""
    return f"rediss://worker:{PASSWORD}@{host}:{server.port}{query}"


@asynccontextmanager
async def standalone(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run one server; yield its URL and the settings for it."""
    async with running_with_tls(folder, certificate, save="", user=USER) as node:
        yield f"rediss://worker:{PASSWORD}@{node.address}/0", {}


@asynccontextmanager
async def cluster(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run a cluster of one master; yield its URL and the settings for it."""
    options = {"cluster_enabled": "yes", "tls_cluster": "yes", "cluster_port": str(free_port())}
    async with running_with_tls(folder, certificate, save="", user=USER, **options) as node:
        await node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)

        async def is_ok() -> bool:
            return bool((await node.ask("CLUSTER INFO"))["cluster_state"] == "ok")

        await wait_until(is_ok, 30, message="the cluster is well")
        yield f"rediss+cluster://worker:{PASSWORD}@{node.address}", {"DELTALOOM_PARTITIONS": "1"}


@asynccontextmanager
async def sentinel(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run a master and one sentinel; yield their URL and the settings for it."""
    async with running_with_tls(folder / "server", certificate, save="", user=USER) as master:
        file = folder / "sentinel.conf"
        file.write_text(f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n", "ascii")
        arguments = (str(file), "--sentinel")
        async with running_with_tls(
            folder / "sentinel", certificate, *arguments, tls_replication="yes"
        ) as watcher:
            yield f"rediss+sentinel://worker:{PASSWORD}@{watcher.address}/{SERVICE}/0", {}


@pytest.mark.parametrize("mode", [standalone, cluster, sentinel])
async def test_the_whole_flow(mode: Any, certificate: Certificate, tmp_path: Path) -> None:
    """The setup of the documentation works with TLS on one server, a cluster and a sentinel group."""
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
    file = tmp_path / "stream.jsonl"
    file.write_text(json.dumps({"type": "response.refusal.done", "refusal": "No.", **part}))
    async with mode(tmp_path / "servers", certificate) as (address, settings):
        url = f"{address}?ssl_ca_certs={certificate.certificate}"
        env = environment(url, **settings)
        names = {name.removeprefix("DELTALOOM_").lower(): value for name, value in settings.items()}
        async with running_workers(url, "deltaloom", **names) as (worker,):
            done = deltaloom("publish", str(file), "--response-id", "resp_1", env=env)
            assert done.returncode == 0, done.stderr
            tail = deltaloom("tail", "alerts", "--from-start", "--count", "2", "--json", env=env)
            assert [json.loads(line)["type"] for line in tail.stdout.splitlines()] == [
                "deltaloom.refusal.opened",
                "deltaloom.refusal.finished",
            ]
            shown = json.loads(deltaloom("show", "resp_1", "--json", env=env).stdout)
            assert [text["text"] for text in shown["texts"]] == ["No."]
            checked = deltaloom("check", env=env)
            assert (checked.returncode, checked.stdout.split()[0]) == (0, "ok")
            for line in worker.lines():
                assert line["level"] != "error", line
            assert PASSWORD not in worker.log.read_text() + checked.stdout


@pytest.mark.parametrize(
    ("authority", "host", "says"),
    [("another's", "127.0.0.1", "self-signed certificate"), ("its", "localhost", "Hostname mismatch")],
)
async def test_a_certificate_that_is_not_trusted(
    server: TlsNode, certificate: Certificate, tmp_path: Path, authority: str, host: str, says: str
) -> None:
    """An untrusted certificate is named with the remedy, not reported as a server that is down."""
    other = certificates.make(made(tmp_path / "another's"))
    file = certificate.certificate if authority == "its" else other.certificate
    url = url_of(server, f"?ssl_ca_certs={file}", host)
    checked = deltaloom("check", env=environment(url))
    assert checked.returncode == 1
    failure = next(line for line in checked.stdout.splitlines() if line.startswith("FAIL"))
    async with beginning_workers(url, "deltaloom") as (worker,):
        await wait_until(
            lambda: worker.has_logged("redis unavailable, retrying"), 30, message="the worker waits"
        )
        line = next(line for line in worker.lines() if "error" in line)
        assert await worker.stop() == 0
    assert (line["level"], line["state"]) == ("warning", "certificate")
    for message in (failure, line["error"]):
        assert f"{host}:{server.port}" in message
        assert f"its certificate is not trusted ({says}" in message
        assert "?ssl_ca_certs=/path/to/ca.pem" in message
        assert PASSWORD not in message


def test_a_file_that_is_not_there() -> None:
    """A missing CA file ends the worker at start, with its name."""
    url = f"rediss://worker:{PASSWORD}@127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem"
    for command in ("worker", "check"):
        done = deltaloom(command, env=environment(url))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "REDIS_URL=(not shown) is not allowed: ssl_ca_certs: there is no file /nowhere/ca.pem\n"
        )


async def test_a_wrong_password(server: TlsNode, certificate: Certificate) -> None:
    """A worker with a wrong password waits until the rights are repaired, and does not log the password."""
    url = url_of(server, f"?ssl_ca_certs={certificate.certificate}").replace(PASSWORD, "s3cret")
    async with beginning_workers(url, "deltaloom") as (worker,):
        await wait_until(
            lambda: worker.has_logged("redis unavailable, retrying"), 30, message="the worker waits"
        )
        await server.ask("ACL", "SETUSER", "worker", ">s3cret")
        await wait_until(lambda: worker.has_logged("worker started"), 30, message="the worker goes on")
        assert "AuthenticationError" in [line.get("state") for line in worker.lines()]
        assert "s3cret" not in worker.log.read_text()
