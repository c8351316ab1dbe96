"""Read the results of Azure's content filters, in chunks, answers and errors."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from deltaloom.dialects.json_values import Object, object_at, objects_at
from deltaloom.dialects.writing import NAMES_LIMIT

_RESULTS = ("content_filter_results", "content_filter_result")


class Block(NamedTuple):
    """Finding of the filters about a prompt or a text."""

    is_blocked: bool
    categories: set[str]
    """Categories for which a filter stopped the text; may be empty even if it is blocked."""


def filtered_categories(value: Object) -> set[str]:
    """Return the categories for which a filter stopped a text, of an object that has filter results."""
    return {
        name[:NAMES_LIMIT]
        for field in _RESULTS
        for name, result in list(object_at(value, field).items())[:NAMES_LIMIT]
        if any(object_at(each).get("filtered") is True for each in _findings(result))
    }


def _findings(result: object) -> list[object]:
    """Return the findings of a category: one, or a list (`custom_blocklists` of older versions)."""
    return result[:NAMES_LIMIT] if isinstance(result, list) else [result]


def block_of(value: Object) -> Block:
    """Return the finding in `content_filters` of a response or an error: a list with an entry for each text.

    An entry without `"blocked": true` is an annotation.
    """
    filters = islice(objects_at(value, "content_filters"), NAMES_LIMIT)
    blocks = [each for each in filters if each.get("blocked") is True]
    names = sorted({name for each in blocks for name in filtered_categories(each)})
    return Block(bool(blocks), set(names[:NAMES_LIMIT]))
