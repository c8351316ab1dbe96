"""Convert an entry's fields to a JSON object and back, for dead letters and the command line."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import msgspec
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode = msgspec.json.Encoder().encode
"""The encoder of msgspec is several times as fast as `json`, and an entry may have tens of megabytes."""


def json_of(fields: Mapping[bytes, bytes]) -> str:
    """Return an entry's fields as a JSON object."""
    return _encode(values_of(fields)).decode()


def values_of(fields: Mapping[bytes, bytes]) -> dict[str, str | dict[str, str]]:
    """Return an entry's fields as values that JSON can represent: see `as_json`.

    In a name, each byte that is not UTF-8 becomes an escape in hexadecimal. If the names have 64 KiB or more
    in total, a name that JSON would make more than twice as long becomes `base64:…` instead.
    """
    as_text = _escaped if sum(map(len, fields)) < _LARGE else _compact
    return {as_text(name): as_json(value) for name, value in fields.items()}


def as_json(value: bytes) -> str | dict[str, str]:
    """Return a field's value as text, or as `{"base64": …}` if it is not UTF-8.

    JSON takes two bytes for a quotation mark and six for a control character. A value becomes base64 too if
    JSON makes it more than twice as long, or, from 64 KiB on, longer than base64 does.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return _binary(value)
    added_at_most = len(value) if len(value) < _LARGE else len(value) // 3
    return text if _escapes(value) <= added_at_most else _binary(value)


def beginning_of(fields: Mapping[bytes, bytes], at_most: int) -> dict[bytes, bytes]:
    """Return the first `at_most` bytes of an entry's fields; the last value may be truncated."""
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
    """Return the first bytes of a value, without a part of a UTF-8 character, which would make it binary."""
    end = at_most
    while end > max(0, at_most - 3) and _CONTINUES[0] <= value[end] <= _CONTINUES[1]:
        end -= 1
    return value[:end]


_CONTINUES = (0x80, 0xBF)
"""The first and last of the UTF-8 continuation bytes."""

_LARGE = 64 * 1024
_SIX_BYTES = bytes(set(range(32)) - set(b"\b\t\n\f\r"))
_TWO_BYTES = b'"\\\b\t\n\f\r'


def _escapes(value: bytes) -> int:
    """Return how many bytes JSON adds to a text."""
    size = len(value)
    return 5 * (size - len(value.translate(None, _SIX_BYTES))) + size - len(value.translate(None, _TWO_BYTES))


def _binary(value: bytes) -> dict[str, str]:
    return {"base64": _base64(value)}


def _escaped(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _compact(name: bytes) -> str:
    text = _escaped(name)
    written = text.encode()
    return text if len(written) + _escapes(written) <= 2 * len(name) else f"base64:{_base64(name)}"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


class _Binary(TypedDict):
    base64: str


_Value = str | _Binary
_FIELDS = TypeAdapter(dict[str, _Value], config=ConfigDict(strict=True))


def fields_of(text: str) -> dict[str, bytes]:
    """Return the fields in the output of `json_of`.

    Raises:
        ValueError: the text is not such output.
    """
    return {
        name: base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value.encode()
        for name, value in _FIELDS.validate_python(json.loads(text)).items()
    }
