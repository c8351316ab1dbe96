"""Split settlements into calls of limited size, so that no call blocks the server for long."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.ports.storage import TextToWrite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from service.ports.storage import CopyToDrop, Settlement

_ITEMS_AT_ONCE = 100
"""Maximum items of one call: settlements, closed parts, and names that responses are counted for. A new name
in a full bucket takes the server as long as a text. A call takes milliseconds to prepare and to run, and the
texts of the next calls wait for it."""

_CHARACTERS_AT_ONCE = 1024 * 1024
"""Maximum characters of the texts that one call writes, unless a single text is longer. Each text is stored
up to four times: in the output, in two alerts, and in the item, which holds the output's JSON."""


def calls_of(settlements: Iterable[Settlement]) -> Iterator[list[Settlement]]:
    """Divide settlements into calls, in order; yield a list of settlements for each call.

    A call has about `_ITEMS_AT_ONCE` items and `_CHARACTERS_AT_ONCE` characters at most. A settlement with
    more is split into pieces, which go into several calls. `settlements` is read only as calls are taken.
    """
    call: list[Settlement] = []
    names: set[tuple[str, str]] = set()
    items = characters = 0
    for piece in (piece for each in settlements for piece in _pieces(each)):
        counted_for = set(piece.outcome.counted_for) if piece.outcome is not None else set()
        more_items = 1 + len(piece.closed) + len(counted_for - names)
        more = sum(len(text.message.text) for text in piece.texts)
        if call and (items + more_items > _ITEMS_AT_ONCE or characters + more > _CHARACTERS_AT_ONCE):
            yield call
            more_items += len(counted_for & names)  # in a new call, these names count again
            call, names, items, characters = [], set(), 0, 0
        call.append(piece)
        names |= counted_for
        items += more_items
        characters += more
    if call:
        yield call


def _pieces(settlement: Settlement) -> Iterator[Settlement]:
    """Yield a settlement in pieces that each fit into one call; one that fits as a whole stays unchanged.

    Each piece has some of the closed parts, in order. All but the last are marked as `partial`, and have no
    contradictions, applied endings or outcome. The last one also names the parts of the earlier pieces.
    """
    groups = list(_groups(settlement.closed))
    for closed in groups[:-1]:
        yield replace(
            settlement,
            closed=closed,
            partial=True,
            applied_endings=(),
            outcome=None,
            ended=False,
            contradictions={},
        )
    if len(groups) <= 1:
        yield settlement
    else:
        earlier = [each.part for closed in groups[:-1] for each in closed]
        yield replace(settlement, closed=groups[-1], earlier=earlier)


def _groups(closed: Iterable[TextToWrite | CopyToDrop]) -> Iterator[list[TextToWrite | CopyToDrop]]:
    """Yield closed parts, in order, in groups that each fit into one call.

    A text that is longer than the limit of characters is alone in its group. Without parts, yield nothing.
    """
    group: list[TextToWrite | CopyToDrop] = []
    characters = 0
    for each in closed:
        size = len(each.message.text) if isinstance(each, TextToWrite) else 0
        if group and (len(group) + 1 >= _ITEMS_AT_ONCE or characters + size > _CHARACTERS_AT_ONCE):
            yield group
            group, characters = [], 0
        group.append(each)
        characters += size
    if group:
        yield group
