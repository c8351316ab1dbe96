"""The kinds of text: one table, from which types, schemas, terminal styles and the contract's page follow.

A handler of a package may bring a kind of its own (`handlers.core.routing.Handler.kinds`), so a reader must
accept any string as a kind. This module needs only the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class TextKind(NamedTuple):
    """A kind of text."""

    name: str
    """Name in messages, keys and settings: lower-case letters, digits and `_`, at most 64."""
    about: str = ""
    """Description in a few words."""
    part_type: str | None = None
    """Type of the content part with the text in copies of an item or a response; None if no copy has it."""
    index_field: Literal["content_index", "summary_index"] = "content_index"
    """Field of its events that gives the position of the part in its item."""
    counts_as_refused: bool = False
    """True if a response with such a text counts as refused, once its opening alert is raised. The end of the
    response then raises no alert."""
    style: str = ""
    """Style of the name on a terminal, as the library rich writes styles; empty for none."""


KINDS: Mapping[str, TextKind] = {
    kind.name: kind
    for kind in (
        TextKind("refusal", "the model declines", "refusal", counts_as_refused=True, style="bold red"),
        TextKind("reasoning", "the model's reasoning", "reasoning_text", style="bold blue"),
        TextKind(
            "reasoning_summary",
            "a part of the summary of the reasoning",
            "summary_text",
            index_field="summary_index",
            style="bold cyan",
        ),
        TextKind("output_text", "the answer", "output_text"),
    )
}
"""Built-in kinds by name, in the order in which they are listed."""
