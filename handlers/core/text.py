"""Handle lone surrogates and digests of texts.

A server may split an emoji, so that two deltas hold the two halves of a surrogate pair. Halves are kept
unchanged, joined, and repaired at the end. A half without its other half becomes U+FFFD, because UTF-8 cannot
encode it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

_DIGEST_LENGTH = 6
"""Characters of a digest, of six bits each: enough to distinguish two texts of one part, and few enough that
the marker of two texts takes less than 200 bytes of Redis."""


def text_digest(text: str) -> str:
    """Return the digest of a text that is stored to compare later copies with the finished text.

    It is the first six characters of the SHA-256 of the text's UTF-8, in URL-safe Base64.

    Raises:
        UnicodeEncodeError: the text has surrogates; pass it through `repair` first.
    """
    return _short(sha256(text.encode()).digest())


def sha256_digest(sha256_hex: str) -> str:
    """Return the `text_digest` of a text, given the SHA-256 of its UTF-8 in hexadecimal.

    Raises:
        ValueError: `sha256_hex` is not hexadecimal.
    """
    return _short(bytes.fromhex(sha256_hex))


def _short(digest: bytes) -> str:
    return urlsafe_b64encode(digest).decode()[:_DIGEST_LENGTH]


def repair(text: str) -> str:
    """Return `text` with surrogate pairs joined, and each lone surrogate replaced by U+FFFD.

    UTF-8 can encode the result. A text without surrogates is returned unchanged.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 units of a text, surrogates included.

    The number is the same before and after `repair`.
    """
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
