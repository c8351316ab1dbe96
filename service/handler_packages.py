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

    brought: list[Handler] = [point.load() for point in entry_points(group=ENTRY_POINT_GROUP)]
    for route in (route for handler in brought for route in handler.routes):
        route.model.model_rebuild()  # reports a wrong model now, not as dead letters at its first event
    return {**BUILT_IN, **{handler.name: handler for handler in brought}}


def enabled_names(setting: str | None, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the handlers that `DELTALOOM_HANDLERS` enables, each once; unknown ones too.

    None means all known handlers, except those that are off by default.
    """
    from handlers import OFF_BY_DEFAULT  # noqa: PLC0415 - slow, and most commands need no handler

    if setting is None:
        return tuple(name for name in known if name not in OFF_BY_DEFAULT)
    return tuple(dict.fromkeys(setting.split(",")))


def disabled_kinds(setting: str | None) -> tuple[str, ...]:
    """Return the names of the kinds that no handler enabled by `DELTALOOM_HANDLERS` rebuilds."""
    known = known_handlers()
    enabled = [known[name] for name in enabled_names(setting, known) if name in known]
    rebuilt = {getattr(kind, "name", kind) for handler in enabled for kind in handler.kinds}
    return tuple(name for name in known_kinds() if name not in rebuilt)


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
