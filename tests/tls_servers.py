"""A server that accepts only TLS, with its own certificate."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.nodes import Node
from tests.tiers import lack, need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.certificates import Certificate

_WHAT, _PACKAGE = "a redis-server with TLS", "redis-server"
_VARIABLE = "DELTALOOM_TEST_TLS_SERVER"
"""Environment variable with the program's path. If it is set, a test that cannot use the program fails."""


class TlsNode(Node):
    """A TLS server from a program of the machine, since the embedded server has no TLS."""

    def __init__(
        self,
        program: str,
        folder: Path,
        certificate: Certificate,
        options: dict[str, str],
        *arguments: str,
    ) -> None:
        files = {
            "tls-cert-file": str(certificate.certificate),
            "tls-key-file": str(certificate.key),
            "tls-ca-cert-file": str(certificate.certificate),
            "tls-auth-clients": "no",
        }
        super().__init__(folder, files | options, *arguments)
        self._command[0] = program
        self._command += ("--port", "0", "--tls-port", str(self.port))
        self.connects_with = {"ssl": True, "ssl_ca_certs": str(certificate.certificate)}


@asynccontextmanager
async def running_with_tls(
    folder: Path, certificate: Certificate, *arguments: str, **options: str
) -> AsyncIterator[TlsNode]:
    """Run a server with this certificate.

    `options` are its configuration; skip the test if there is no program.
    """
    program = need("redis-server", "valkey-server", what=_WHAT, package=_PACKAGE, variable=_VARIABLE)
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    node = TlsNode(program, folder, certificate, settings, *arguments)
    try:
        await node.start()
    except AssertionError:
        if os.environ.get(_VARIABLE):
            raise
        lack(_WHAT, _PACKAGE)
    try:
        yield node
    finally:
        await node.kill()
