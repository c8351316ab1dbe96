"""Surrogate halves: a split emoji may come as two halves of a pair in two deltas.

They are kept as they came, joined, and repaired at the end; a half that never found its other half
becomes U+FFFD, because no UTF-8 reader could take it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

_DIGEST_LENGTH = 6
"""Characters of a digest, of six bits each: enough to tell two texts of one part apart, and so few that the
marker of two texts takes less than 200 bytes of Redis."""


def text_digest(text: str) -> str:
    """Return the digest that is stored of a finished text."""
    return sha256_digest(sha256(text.encode()).hexdigest())


def sha256_digest(sha256_hex: str) -> str:
    """Return the digest of a text from its SHA-256 in hexadecimal."""
    return urlsafe_b64encode(bytes.fromhex(sha256_hex)).decode()[:_DIGEST_LENGTH]


def repair(text: str) -> str:
    """`text` with surrogate pairs joined and lone halves replaced; always encodable as UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def to_bytes(text: str) -> bytes:
    """`text` as UTF-8, lone halves included, so that nothing is lost before the repair."""
    return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """Read back what `to_bytes` wrote."""
    return data.decode("utf-8", "surrogatepass")


def utf16_length(text: str) -> int:
    """Return the length of a text in UTF-16 units: the same before and after the repair."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
