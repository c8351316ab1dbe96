"""Surrogate halves: a split emoji may come as two halves of a pair in two deltas.

They are kept as they came, joined, and repaired at the end; a half that never found its other half
becomes U+FFFD, because no UTF-8 reader could take it.
"""

from __future__ import annotations


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
