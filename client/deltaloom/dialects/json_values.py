"""Read values from parsed JSON of unknown shape. A value of another type counts as missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]
"""A JSON object."""

_INDEX_LIMIT = 2**31
_INDEX_DIGITS = 12


def object_at(value: object, *path: str) -> Object:
    """Return the object at a path of keys; an empty one if there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def objects_at(value: object, *path: str) -> Iterator[Object]:
    """Yield the objects in the list at a path of keys, without its other elements."""
    *parents, key = path
    found = object_at(value, *parents).get(key)
    return (each for each in found if isinstance(each, dict)) if isinstance(found, list) else iter(())


def text_at(value: object, *path: str) -> str:
    """Return the string at a path of keys; an empty one if there is none."""
    *parents, key = path
    found = object_at(value, *parents).get(key)
    return found if isinstance(found, str) else ""


def words_at(value: object, *path: str) -> Iterator[str]:
    """Yield the strings in the list at a path of keys, without its other elements."""
    *parents, key = path
    found = object_at(value, *parents).get(key)
    return (each for each in found if isinstance(each, str)) if isinstance(found, list) else iter(())


def word_at(value: object, *path: str) -> str:
    """Return the string or number at a path of keys, as a string: some servers send codes as numbers."""
    *parents, key = path
    found = object_at(value, *parents).get(key)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else ""


def index_at(value: object, key: str) -> int:
    """Return the index at a key, also if it is a string; 0 if there is none.

    A number that is no index gives the last one below 2^31, so that its text is not mixed with another's.
    """
    found = object_at(value).get(key)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, str) and found.isascii() and found.isdecimal():
        found = int(found[:_INDEX_DIGITS])
    if not isinstance(found, int) or isinstance(found, bool):
        return 0
    return found if 0 <= found < _INDEX_LIMIT else _INDEX_LIMIT - 1
