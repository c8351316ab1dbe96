"""Cut a JSON array into its elements without reading them.

A parser of the whole array would make objects of millions of brackets, and would refuse all of it for one
element that is nested too deeply, has a number of thousands of digits, or is no JSON. So each element is cut
out as it was written, to be read alone.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.pipeline.frames import NotFrameError, decode_raw

if TYPE_CHECKING:
    from collections.abc import Callable

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_INNERMOST: Final = rb'(?:[^][{}"]++|%b)*+' % _STRING
_STRUCTURE: Final = re.compile(
    rb'(?:[^][{},"]++|%b|\{%b\}|\[%b\])*+([][{},"])' % (_STRING, _INNERMOST, _INNERMOST), re.DOTALL
)
"""A bracket or a comma, behind whatever else, whole strings, and brackets without others in them. A quotation
mark in its place begins a string that has no end. It is linear: it never goes back, but to the bracket that
it has just tried."""

MOST_STRUCTURE: Final = 100_000
"""Brackets and commas that are looked at one by one, which takes a twentieth of a second."""

_BLANK: Final = b" \t\n\r"


class TooMuchStructureError(ValueError):
    """No parser takes an array, and it has more than `MOST_STRUCTURE`."""


def elements_of(body: bytes, at_most: int) -> list[bytes] | None:
    """Return the elements of an array as their JSON; None if the body is no array with its end.

    Of an array that is longer, `at_most` elements and one more are returned.

    Raises:
        TooMuchStructureError: it cannot be cut.
    """
    if not body.lstrip(_BLANK).startswith(b"["):
        return None
    decode = decode_raw if body.count(b",") <= at_most else _first_elements(at_most + 1)
    with suppress(*NotFrameError):
        return [bytes(raw) for raw in decode(body) if raw]
    return split_array(body, at_most)


@lru_cache(maxsize=4)
def _first_elements(number: int) -> Callable[[bytes], tuple[msgspec.Raw, ...]]:
    """Return a function that returns the first elements of an array, and passes over all others."""
    fields: list[Any] = [(f"element_{n}", msgspec.Raw, msgspec.Raw(b"")) for n in range(number)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True, gc=False)).decode
    return lambda body: msgspec.structs.astuple(decode(body))


def split_array(body: bytes, at_most: int) -> list[bytes] | None:
    """Return the same, by looking at nothing but the structure.

    Raises:
        TooMuchStructureError: there is too much of it.
    """
    body = body.strip(_BLANK)
    if not body.startswith(b"["):
        return None
    elements: list[bytes] = []
    depth, start = 1, 1
    at = start
    for _ in range(MOST_STRUCTURE):
        found = _STRUCTURE.match(body, at)  # a search would try again at each byte where nothing follows
        if found is None:
            return None
        character, at = found[1], found.end()
        if character in b"[{":
            depth += 1
        elif character == b"," and depth == 1:
            elements.append(body[start : found.start(1)].strip(_BLANK))
            start = at
            if len(elements) > at_most:
                return elements
        elif character in b"]}":
            depth -= 1
            if depth == 0:
                elements.append(body[start : found.start(1)].strip(_BLANK))
                return elements if at == len(body) and character == b"]" else None
        elif character == b'"':
            return None
    raise TooMuchStructureError
