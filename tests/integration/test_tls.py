"""A worker and the command on a server that speaks TLS only, as a user of its own."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chaos.processes import free_port
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

PASSWORD = "workers-only"  # noqa: S105 - of a server that lives as long as one test
USER = f"worker on >{PASSWORD} ~deltaloom:* +@all -@admin"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """The server's, which is also its CA's."""
    return certificates.make(made(tmp_path / "its"))


@pytest.fixture
async def server(tmp_path: Path, certificate: Certificate) -> AsyncIterator[TlsNode]:
    """A server that knows a user beside the default one."""
    async with running_with_tls(tmp_path / "server", certificate, save="", user=USER) as node:
        yield node


def made(folder: Path) -> Path:
    """The folder, which is there now."""
    folder.mkdir()
    return folder


def url_of(server: TlsNode, query: str = "", host: str = "127.0.0.1") -> str:
    """As an operator writes it."""
    return f"rediss://worker:{PASSWORD}@{host}:{server.port}{query}"


@asynccontextmanager
async def standalone(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """One server: its URL, and what else a worker has to be told."""
    async with running_with_tls(folder, certificate, save="", user=USER) as node:
        yield f"rediss://worker:{PASSWORD}@{node.address}/0", {}


@asynccontextmanager
async def cluster(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A cluster of one master."""
    options = {"cluster_enabled": "yes", "tls_cluster": "yes", "cluster_port": str(free_port())}
    async with running_with_tls(folder, certificate, save="", user=USER, **options) as node:
        await node.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)

        async def is_ok() -> bool:
            return bool((await node.ask("CLUSTER INFO"))["cluster_state"] == "ok")

        await wait_until(is_ok, 30, message="the cluster is well")
        yield f"rediss+cluster://worker:{PASSWORD}@{node.address}", {"DELTALOOM_PARTITIONS": "1"}


@asynccontextmanager
async def sentinel(folder: Path, certificate: Certificate) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A master, and one sentinel that watches it."""
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
    """What is set up as the page says would work with an open server only."""
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
            told = deltaloom("tail", "alerts", "--from-start", "--count", "2", "--json", env=env)
            assert [json.loads(line)["type"] for line in told.stdout.splitlines()] == [
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
    """It would look like a server that is away, and nobody would look at the certificate."""
    other = certificates.make(made(tmp_path / "another's"))
    file = certificate.certificate if authority == "its" else other.certificate
    url = url_of(server, f"?ssl_ca_certs={file}", host)
    checked = deltaloom("check", env=environment(url))
    assert checked.returncode == 1
    told = next(line for line in checked.stdout.splitlines() if line.startswith("FAIL"))
    async with beginning_workers(url, "deltaloom") as (worker,):
        await wait_until(lambda: worker.said("redis is away, waiting for it"), 30, message="the worker waits")
        line = next(line for line in worker.lines() if "error" in line)
        assert await worker.stop() == 0
    assert (line["level"], line["state"]) == ("warning", "certificate")
    for message in (told, line["error"]):
        assert f"{host}:{server.port}" in message
        assert f"its certificate is not trusted ({says}" in message
        assert "?ssl_ca_certs=/path/to/ca.pem" in message
        assert PASSWORD not in message


def test_a_file_that_is_not_there() -> None:
    """A worker would wait for a server that is there, and never name the file."""
    url = f"rediss://worker:{PASSWORD}@127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem"
    for command in ("worker", "check"):
        done = deltaloom(command, env=environment(url))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "REDIS_URL=(not shown) is not allowed: ssl_ca_certs: there is no file /nowhere/ca.pem\n"
        )


async def test_a_wrong_password(server: TlsNode, certificate: Certificate) -> None:
    """A worker would end, though an operator is about to mend the rights; or write the password down."""
    url = url_of(server, f"?ssl_ca_certs={certificate.certificate}").replace(PASSWORD, "s3cret")
    async with beginning_workers(url, "deltaloom") as (worker,):
        await wait_until(lambda: worker.said("redis is away, waiting for it"), 30, message="the worker waits")
        await server.ask("ACL", "SETUSER", "worker", ">s3cret")
        await wait_until(lambda: worker.said("worker started"), 30, message="the worker goes on")
        assert "AuthenticationError" in [line.get("state") for line in worker.lines()]
        assert "s3cret" not in worker.log.read_text()
