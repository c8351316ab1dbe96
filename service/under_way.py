"""Record the steps that this process has under way, so that a step that does not end can be found.

The record is one for the process, as its event loop is, and always on. `service/observability/liveness.py`
judges it. A step moves with each call on the server that succeeds. While it waits for an unavailable server
it is not stuck.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextvars import Token
    from typing import Self

Kind: TypeAlias = Literal["batch", "read", "round"]


class Step:
    """A step under way, as a context manager around it: `with Step("batch", stream):`.

    Args:
        kind: kind of the step, which decides how long it may take.
        name: name for people, such as the input stream or the periodic task.
    """

    __slots__ = ("_token", "call_since", "kind", "moved_at", "name", "waits")

    _token: Token[Step | None]

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind = kind
        self.name = name
        self.moved_at = 0.0
        """Monotonic time of its begin or its latest successful call."""
        self.call_since: float | None = None
        """Monotonic time of the begin of the call under way; None if there is none, or it does not wait."""
        self.waits = False
        """True while it waits for an unavailable server."""

    def __enter__(self) -> Self:
        self.moved_at = monotonic()
        self._token = _current.set(self)
        _under_way.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _under_way.discard(self)
        _current.reset(self._token)


_under_way: set[Step] = set()
_current: ContextVar[Step | None] = ContextVar("step", default=None)


def steps() -> Collection[Step]:
    """Return the steps under way in this process; they may change."""
    return _under_way


def current() -> str | None:
    """Return the kind and the name of the step of the running task, for people; None if it has no step."""
    step = _current.get()
    return None if step is None else f"{step.kind} {step.name}"


def calls() -> None:
    """Record that the step of the running task begins a call on the server, if it waits for that."""
    step = _current.get()
    if step is not None and step.waits:
        step.call_since = monotonic()


def moved() -> None:
    """Record that a call of the step has succeeded."""
    step = _current.get()
    if step is not None:
        step.moved_at = monotonic()
        if step.waits:
            step.call_since, step.waits = None, False


def unavailable() -> None:
    """Record that the step waits, since the server is unavailable."""
    step = _current.get()
    if step is not None:
        step.call_since = None
        step.waits = True
