"""What was asked for lately, kept in two generations: the older one is dropped when the younger is full.

What is asked for again and again stays, however much comes once and never again; and there is a limit.
Several threads may use one: at worst something is forgotten that would have stayed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A cache of at most twice `size` values."""

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        """What is kept under a key.

        Raises:
            KeyError: nothing is, or not any more.
        """
        try:
            return self._young[key]
        except KeyError:
            value = self._old[key]
            self[key] = value
            return value

    def get(self, key: Key) -> Value | None:
        """What is kept under a key, if anything is."""
        try:
            return self[key]
        except KeyError:
            return None

    def __setitem__(self, key: Key, value: Value) -> None:
        """Keep a value."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def discard(self, key: Key) -> None:
        """Keep nothing under a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)
