"""Certificates of erasures, and the chain of their digests in the archive.

The digest of a certificate is the SHA-256 of its canonical JSON. Each digest is hashed together with the
chain up to the certificate before it, so whoever holds one can show later that neither it nor an earlier
one was changed, removed or added. A key would have to be kept secret, also from those who keep the archive; a
chain needs none. Its end can be cut off unseen only as long as nobody holds a certificate of that part.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archive.database import Database

CHAIN: Final = "chain"
"""Field of a certificate with its place in the chain, which its digest leaves out."""

_BEGINNING: Final = bytes(32)
_LINKS_AT_ONCE: Final = 10_000


class CertificateError(ValueError):
    """The certificate does not agree with the archive; the text says how."""


class Certificates:
    """The chain of certificates in a database.

    All methods raise `ArchiveUnavailableError`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def issue(self, certificate: Mapping[str, Any], erasure: int) -> dict[str, Any]:
        """Add a certificate to the chain; return it with its place there.

        Args:
            certificate: its content, JSON values.
            erasure: number of the erasure.
        """
        digest = digest_of(certificate)
        with self._database.transaction(writing=True) as session:
            last = session.rows("SELECT chain FROM certificates ORDER BY number DESC LIMIT 1")
            previous = bytes(last[0][0]) if last else _BEGINNING
            chain = _linked(previous, digest)
            rows = session.rows(
                "INSERT INTO certificates (erasure, digest, chain) VALUES (?, ?, ?) RETURNING number",
                (erasure, digest, chain),
            )
        return {
            **certificate,
            CHAIN: {"number": rows[0][0], "previous": previous.hex(), "own": chain.hex()},
        }

    def verify(self, certificate: Mapping[str, Any]) -> int:
        """Check a certificate against the archive; return the number of certificates in the chain.

        Raises:
            CertificateError: it is no certificate, it was changed, or the chain was.
        """
        place = certificate.get(CHAIN)
        if not isinstance(place, dict) or not isinstance(place.get("number"), int):
            raise CertificateError("it is no certificate of an erasure")
        digest = digest_of(certificate)
        found = False
        previous, count, after = _BEGINNING, 0, 0
        while links := self._links(after):
            for number, stored, chain in links:
                if _linked(previous, bytes(stored)) != bytes(chain):
                    raise CertificateError(f"the archive's chain is broken at certificate {number}")
                if number == place["number"]:
                    if (bytes(stored), previous.hex(), bytes(chain).hex()) != (
                        digest,
                        place.get("previous"),
                        place.get("own"),
                    ):
                        raise CertificateError("it is not the certificate that the archive has recorded")
                    found = True
                previous, count, after = bytes(chain), count + 1, number
        if not found:
            raise CertificateError(f"the archive has no certificate {place['number']}")
        return count

    def _links(self, after: int) -> list[Any]:
        statement = "SELECT number, digest, chain FROM certificates WHERE number > ? ORDER BY number LIMIT ?"
        with self._database.transaction() as session:
            return session.rows(statement, (after, _LINKS_AT_ONCE))


def digest_of(certificate: Mapping[str, Any]) -> bytes:
    """Return the digest of a certificate, without its place in the chain."""
    content = {name: value for name, value in certificate.items() if name != CHAIN}
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(written.encode()).digest()


def _linked(previous: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(previous + digest).digest()
