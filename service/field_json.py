"""An entry's fields as one JSON object, and back: as dead letters have them, and as the command shows."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import msgspec
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants it of there before Python 3.12

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode = msgspec.json.Encoder().encode
"""Several times as fast as the standard library's: an entry may have tens of megabytes."""


def json_of(fields: Mapping[bytes, bytes]) -> str:
    """Return an entry's fields as a JSON object."""
    return _encode(values_of(fields)).decode()


def values_of(fields: Mapping[bytes, bytes]) -> dict[str, str | dict[str, str]]:
    """Return an entry's fields as JSON can hold them: see `as_json`."""
    return {name.decode("utf-8", "backslashreplace"): as_json(value) for name, value in fields.items()}


def as_json(value: bytes) -> str | dict[str, str]:
    """Return a field's value as JSON can hold it: text, or base64 where it is not UTF-8.

    JSON takes two bytes for a quotation mark, and six for a control character. A value that it makes more
    than twice as long becomes base64 too; a large one, if JSON would make it longer than base64 does.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return _binary(value)
    added_at_most = len(value) if len(value) < _LARGE else len(value) // 3
    return text if _escapes(value) <= added_at_most else _binary(value)


def beginning_of(fields: Mapping[bytes, bytes], at_most: int) -> dict[bytes, bytes]:
    """Return the first fields of an entry that have at most so many bytes; the last value may be cut."""
    kept: dict[bytes, bytes] = {}
    left = at_most
    for name, value in fields.items():
        left -= len(name)
        if left <= 0:
            break
        kept[name] = value if len(value) <= left else _cut(value, left)
        left -= len(value)
    return kept


def _cut(value: bytes, at_most: int) -> bytes:
    """Return the first bytes of a value: of text, no part of a character, which would make it binary."""
    end = at_most
    while end > max(0, at_most - 3) and _CONTINUES[0] <= value[end] <= _CONTINUES[1]:
        end -= 1
    return value[:end]


_CONTINUES = (0x80, 0xBF)
"""The bytes of UTF-8 that continue a character, from and to."""

_LARGE = 64 * 1024
_SIX_BYTES = bytes(set(range(32)) - set(b"\b\t\n\f\r"))
_TWO_BYTES = b'"\\\b\t\n\f\r'


def _escapes(value: bytes) -> int:
    """Return how many bytes JSON adds to a text."""
    size = len(value)
    return 5 * (size - len(value.translate(None, _SIX_BYTES))) + size - len(value.translate(None, _TWO_BYTES))


def _binary(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


class _Binary(TypedDict):
    base64: str


_Value = str | _Binary
_FIELDS = TypeAdapter(dict[str, _Value], config=ConfigDict(strict=True))


def fields_of(text: str) -> dict[str, bytes]:
    """Return the fields that `json_of` wrote; `ValueError` if a text is no such thing."""
    return {
        name: base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value.encode()
        for name, value in _FIELDS.validate_python(json.loads(text)).items()
    }
