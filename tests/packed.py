"""Read the entries that a plan has for its script."""

from __future__ import annotations

import contextlib

import msgspec


def unpacked(values: bytes) -> list[str]:
    """Return consecutive MessagePack values.

    Raises:
        ValueError: they are not all texts, or incomplete.
    """
    for count in range(len(values) + 1):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.msgpack.decode(b"\xdc" + count.to_bytes(2, "big") + values, type=list[str])
    raise ValueError("these are not consecutive texts")
