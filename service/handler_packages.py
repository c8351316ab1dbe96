"""Find the handlers that are built in or installed as packages, and the kinds of text that they bring."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from deltaloom.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deltaloom.kinds import TextKind
    from handlers import Handler


def known_handlers() -> dict[str, Handler]:
    """Return all available handlers by name: built-in ones, and those of installed packages."""
    from handlers import BUILT_IN, ENTRY_POINT_GROUP  # noqa: PLC0415 - slow, and most commands need no handler

    brought: Iterable[Handler] = (point.load() for point in entry_points(group=ENTRY_POINT_GROUP))
    return {**BUILT_IN, **{handler.name: handler for handler in brought}}


def kind_of(name: str) -> TextKind | None:
    """Return the kind of text with this name, built in or brought by a package; None if there is none.

    Packages are imported only for a name that is not built in.
    """
    return KINDS.get(name) or _kinds_of_packages().get(name)


def known_kinds() -> tuple[str, ...]:
    """Return the names of all kinds: the built-in ones first."""
    return (*KINDS, *_kinds_of_packages())


@cache
def _kinds_of_packages() -> Mapping[str, TextKind]:
    return {kind.name: kind for handler in known_handlers().values() for kind in handler.own_kinds}
