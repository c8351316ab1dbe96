"""A bounded cache with two generations: when the young one is full, it replaces the old one.

A value that is used again moves to the young generation. So frequently used values stay, even if many others
are used only once. Several threads may use one cache; a race can only drop a value too early.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class TwoGenerationCache(Generic[Key, Value]):
    """A cache of at most twice `size` values."""

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        """Return the value of a key.

        Raises:
            KeyError: the key is not cached.
        """
        try:
            return self._young[key]
        except KeyError:
            value = self._old[key]
            self[key] = value
            return value

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None if it is not cached."""
        value = self._young.get(key)
        if value is None and key in self._old and key not in self._young:
            self[key] = value = self._old[key]
        return value

    def __setitem__(self, key: Key, value: Value) -> None:
        """Cache a value."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def discard(self, key: Key) -> None:
        """Remove a key, if it is cached."""
        self._young.pop(key, None)
        self._old.pop(key, None)
