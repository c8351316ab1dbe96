"""Make the context fields of a response from what a caller gives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from deltaloom import limits

if TYPE_CHECKING:
    from collections.abc import Mapping


def text_of(value: object) -> str:
    """Return a value as text that UTF-8 can express; empty for None."""
    if value is None:
        return ""
    with contextlib.suppress(Exception):
        return str(value).encode("utf-8", "replace").decode()
    return ""


def context_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return the context fields that have a value.

    A value beyond the limit of its field keeps one character too many, so that workers see it and leave
    it out.
    """
    texts = {
        name: text_of(value)[: limits.CONTEXT[name] + 1]
        for name, value in values.items()
        if name in limits.CONTEXT
    }
    return {name: text for name, text in texts.items() if text}
