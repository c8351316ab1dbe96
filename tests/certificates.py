"""Self-signed certificates for 127.0.0.1. A test makes its own, so that the repository contains no key."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.tiers import need

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate: a client that trusts it trusts this one server."""

    certificate: Path
    key: Path


def make(folder: Path) -> Certificate:
    """Make a certificate with openssl; skip the test if openssl is missing."""
    program = need("openssl", what="openssl", package="openssl")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2"]
    command += ["-subj", "/CN=deltaloom test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-out", str(made.certificate), "-keyout", str(made.key)]
    subprocess.run(command, check=True, capture_output=True)
    return made
