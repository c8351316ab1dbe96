"""Validate an event by its model, and leave out the fields that the model refuses.

Real servers send odd fields next to good ones: an empty id, an object in place of an empty list, a number as
a string. An odd field must not cost the whole event:

1. An integer that is written as `1.0` or `"1"` is read as 1.
2. An index that is null (see `POSITIONS`) is read as 0, and named like a field that is left out.
3. Any other value that the model refuses is left out. In a list, an empty object replaces it, so that the
   other elements keep their positions. A field that is null is left out without being named.
4. An object that lacks a required field is left out as a whole. If that object is the event itself, the event
   is refused with the first error about the field.
"""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from deltaloom.events import TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from deltaloom.events import Event

    Path = tuple[str | int, ...]
    """Keys and list indexes that lead from an event to a value in it."""

POSITIONS: Final = frozenset({"output_index", "content_index", "summary_index"})

_DIGITS: Final = re.compile("-?[0-9]{1,19}")

_MAX_PASSES: Final = 20
"""Maximum validation passes: the models are six levels deep, and each level takes at most two passes."""


class NoFitError(ValueError):
    """An event does not fit its model, whatever is left out: mostly, it lacks a required field.

    The text says what is wrong, and names a required field that is missing or wrong.
    """


class Fitted(NamedTuple):
    """A validated event, and the fields that were left out.

    `left_out` has their dotted names, such as `item.content.text`, without list indexes, sorted and without
    repeats. Fields that were null are not named; an index that was null and is read as 0 is.
    """

    event: Event
    left_out: Sequence[str]


def fit(model: type[Event], value: Mapping[str, Any], *, strict: bool) -> Fitted:
    """Validate an event; mend or leave out values that its model refuses, by the rules of this module.

    Args:
        model: the event's model.
        value: the event; it is not changed.
        strict: False for flat fields, so that the model reads numbers from strings.

    Raises:
        NoFitError: a required field is missing or wrong, or leaving out values does not help.
    """
    fitting = _Fitting(value)
    while True:
        try:
            event = model.model_validate(fitting.value, strict=strict)
        except ValidationError as error:
            fitting.mend(error.errors(include_url=False, include_input=False, include_context=False))
        else:
            return Fitted(event, sorted({_name(path) for path in fitting.left_out.keys() - fitting.null}))


class _Fitting:
    """A copy of an event, changed until its model accepts it. Containers are copied before a change."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value: Any = dict(value)
        self.left_out: dict[Path, str] = {}
        """Paths of the values that were left out, each with its first error."""
        self.null: set[Path] = set()
        """Paths of null values in optional fields: they count as missing, not as left out."""
        self._own: dict[int, Any] = {}
        """Containers that were copied and may be changed, by their `id()`."""
        self._passes = 0
        self._left_out_before: frozenset[Path] = frozenset()
        """The paths that earlier passes have left out."""

    def mend(self, errors: Sequence[ErrorDetails]) -> None:
        """Change or leave out each value that an error of one validation is about.

        If the value was left out before, its object or list is left out.

        Raises:
            NoFitError: a required field is missing or wrong, or leaving out values does not help.
        """
        self._passes += 1
        self._left_out_before = frozenset(self.left_out)
        for error in errors:
            path: Path = tuple(step for step in error["loc"] if not str(step).startswith(TAG))
            self._mend(path, error)

    def _mend(self, path: Path, error: ErrorDetails) -> None:
        message = error["msg"]
        if not path or self._passes > _MAX_PASSES:
            raise NoFitError(message)
        if error["type"] == "missing":
            if len(path) == 1:
                raise NoFitError(f"{path[0]}: {self.left_out.get(path, message)}")
            path = path[:-1]
        holder = self._holder(path)
        name: Any = path[-1]
        if holder is None:  # it was left out together with its object
            return
        value = holder[name] if isinstance(holder, list) else holder.get(name)
        number = _integer(value) if error["type"].startswith("int_") else None
        if number is not None:
            holder[name] = number
        elif name in POSITIONS and value is None:
            holder[name] = 0
            self.left_out[path] = message
        elif path in self._left_out_before:  # its object or list is invalid without it
            self._leave_out(path[:-1], message)
        elif path not in self.left_out:  # an object may lack several values
            self._leave_out(path, message)

    def _leave_out(self, path: Path, message: str) -> None:
        if not path:
            raise NoFitError(message)
        holder = self._holder(path)
        name: Any = path[-1]
        if isinstance(holder, list):
            holder[name] = {}
        elif holder is not None and holder.pop(name, None) is None:
            self.null.add(path)
        self.left_out.setdefault(path, message)

    def _holder(self, path: Path) -> Any:
        """Return the container of the value at a path; None if the container was left out.

        The caller may change it: at the first call, a copy takes its place in `value`.
        """
        holder = self.value
        for step in path[:-1]:
            try:
                inner = holder[step]
            except (LookupError, TypeError):
                return None
            if id(inner) not in self._own:
                inner = holder[step] = copy(inner)
                self._own[id(inner)] = inner
            holder = inner
        return holder if isinstance(holder, dict | list) else None


def _integer(value: Any) -> int | None:
    """Return the integer that a float or a string of at most 19 decimal digits denotes, else None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return None


def _name(path: Path) -> str:
    return ".".join(step for step in path if isinstance(step, str))
