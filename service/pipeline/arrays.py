"""Cut a JSON array into its elements without reading them.

Parsers refuse an array as a whole for one element that is nested too deeply, has a number of thousands of
digits, or is no JSON. So that such an element costs only itself, this looks at nothing but strings, brackets
and commas.
"""

from __future__ import annotations

import re
from typing import Final

_STRUCTURE: Final = re.compile(rb'(?:[^][{},"]++|"(?:[^"\\]++|\\.)*+")*+([][{},"])', re.DOTALL)
"""A bracket or a comma, behind whatever else and whole strings. A quotation mark in its place begins a string
that has no end. It is linear, since it never goes back."""

_BLANK: Final = b" \t\n\r"


def split_array(body: bytes) -> list[bytes] | None:
    """Return the elements of an array as their JSON; None if the body is no array with its end."""
    body = body.strip(_BLANK)
    if not body.startswith(b"["):
        return None
    elements: list[bytes] = []
    depth, start = 0, 1
    for found in _STRUCTURE.finditer(body):
        character = found[1]
        if character in b"[{":
            depth += 1
        elif character == b"," and depth == 1:
            elements.append(body[start : found.start(1)].strip(_BLANK))
            start = found.end()
        elif character in b"]}":
            depth -= 1
            if depth == 0:
                elements.append(body[start : found.start(1)].strip(_BLANK))
                return elements if found.end() == len(body) and character == b"]" else None
        elif character == b'"':
            return None
    return None
