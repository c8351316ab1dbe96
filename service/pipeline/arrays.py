"""Split a JSON array into its elements, as raw JSON.

A parser that builds objects would build them for millions of brackets. It would also refuse the whole array
for one element that is nested too deeply, has a number of thousands of digits, or is malformed. So this
module cuts out each element as it was written, and its callers parse the elements one by one. msgspec splits
arrays without errors; `split_array` splits those that msgspec refuses.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.pipeline.frames import NOT_A_FRAME, decode_raw

if TYPE_CHECKING:
    from collections.abc import Callable

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_INNERMOST: Final = rb'(?:[^][{}"]++|%b)*+' % _STRING
_STRUCTURE: Final = re.compile(
    rb'(?:[^][{},"]++|%b|\{%b\}|\[%b\])*+([][{},"])' % (_STRING, _INNERMOST, _INNERMOST), re.DOTALL
)
"""Match up to the next structural character (a bracket, brace or comma), which is group 1. The match skips
other characters, complete strings, and innermost pairs of brackets. Group 1 is a quotation mark if a string
has no end. The pattern runs in linear time: it backtracks at most to the bracket that it has just tried."""

MAX_STRUCTURE: Final = 100_000
"""Maximum structural characters that `split_array` visits. They take about 50 ms."""

_BLANK: Final = b" \t\n\r"


class TooMuchStructureError(ValueError):
    """An array that msgspec refuses needs more than `MAX_STRUCTURE` steps to be split."""


def elements_of(body: bytes, at_most: int) -> list[bytes] | None:
    """Return the elements of a JSON array, each as raw JSON; None if the body is not one complete array.

    A malformed element does not cost the others: it is returned as it was written. An array with more than
    `at_most` elements gives its first `at_most + 1` elements, even if its end is missing.

    Raises:
        TooMuchStructureError: msgspec refuses the array, and `split_array` would take too long.
    """
    if not body.lstrip(_BLANK).startswith(b"["):
        return None
    decode = decode_raw if body.count(b",") <= at_most else _first_elements(at_most + 1)
    with suppress(*NOT_A_FRAME):
        return [bytes(raw) for raw in decode(body) if raw]
    return split_array(body, at_most)


@lru_cache(maxsize=4)
def _first_elements(number: int) -> Callable[[bytes], tuple[msgspec.Raw, ...]]:
    """Return a function that decodes an array to its first `number` elements; absent ones become empty."""
    fields: list[Any] = [(f"element_{n}", msgspec.Raw, msgspec.Raw(b"")) for n in range(number)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True, gc=False)).decode
    return lambda body: msgspec.structs.astuple(decode(body))


def split_array(body: bytes, at_most: int) -> list[bytes] | None:
    """Return the elements of an array that msgspec refuses, as `elements_of` does; split at the commas.

    Each step goes to the next structural character outside of innermost pairs of brackets. A place without an
    element gives an empty element, also in an empty array.

    Raises:
        TooMuchStructureError: `MAX_STRUCTURE` steps have reached neither the end nor `at_most + 1` elements.
    """
    body = body.strip(_BLANK)
    if not body.startswith(b"["):
        return None
    elements: list[bytes] = []
    depth, start = 1, 1
    at = start
    for _ in range(MAX_STRUCTURE):
        found = _STRUCTURE.match(body, at)  # `search` would retry at each byte: quadratic
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
