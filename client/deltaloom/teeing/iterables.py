"""Wrap a stream so that what the caller iterates is also copied."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from deltaloom.dialects import dialect_named
from deltaloom.teeing.stream_copy import StreamCopy, checked_context, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self, Unpack

    from deltaloom.teeing.stream_copy import CopyContext, EventPublisher

Stream = TypeVar("Stream")


def tee(
    stream: Stream, publisher: EventPublisher, *, dialect: str | None = None, **context: Unpack[CopyContext]
) -> Stream:
    """Return the stream, wrapped: what the caller iterates is also copied.

    The wrapper has the attributes of the stream and passes for an instance of its class. It asks the stream
    for an item only when the caller does, and raises what the stream raises. The copy ends as cancelled if
    the caller closes the stream, leaves its `with` block or drops it before the end.

    Args:
        stream: sync or async iterable of an SDK's events, of dicts, or of the bytes of a body; or a context
            manager that returns one.
        publisher: publisher of the events.
        dialect: name of the dialect; None to detect it from the first events.
        **context: context of the response.

    Raises:
        ValueError: no dialect has the name.
        TypeError: the stream is not iterable, or a name of the context is unknown.
    """
    if dialect is not None:
        dialect_named(dialect)
    kind = type(stream)
    is_sync = hasattr(kind, "__iter__") or hasattr(kind, "__enter__")
    is_async = hasattr(kind, "__aiter__") or hasattr(kind, "__aenter__")
    if not (is_sync or is_async):
        raise TypeError(f"a stream must be iterable, which {kind.__name__!r:.80} is not: was it awaited?")
    wrapper = _WRAPPERS[is_sync, is_async]
    copy = StreamCopy(publisher, checked_context(context), dialect=dialect)
    return wrapper(stream, copy)  # type: ignore[return-value] # it passes for the stream


class _Wrapper:
    """The attributes of a stream, and the copy of what is iterated.

    Args:
        stream: the stream, or its context manager.
        copy: the copy.
    """

    def __init__(self, stream: Any, copy: StreamCopy) -> None:
        self._tee_stream = stream
        self._tee_manager = stream
        self._tee_copy = copy
        self._tee_iterator: Any = None

    @property  # type: ignore[misc] # frameworks check the class of a stream
    def __class__(self) -> type:
        return type(self._tee_stream)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        if name.startswith("_tee_"):  # the wrapper was not initialised
            raise AttributeError(name)
        value = getattr(self._tee_stream, name)
        return partial(self._tee_close, value) if name in {"close", "aclose"} else value

    def __repr__(self) -> str:
        return repr(self._tee_stream)

    def __del__(self) -> None:
        copy = self.__dict__.get("_tee_copy")
        if copy is not None:
            copy.end("cancelled")

    def _tee_close(self, close: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """End the copy and close the stream; return what its method returns, such as a coroutine."""
        self._tee_copy.end("cancelled")
        return close(*args, **options)

    def _tee_entered(self, entered: Any) -> None:
        """Go on with the stream that its context manager returned."""
        self._tee_stream = entered


class SyncTee(_Wrapper):
    """A sync stream that is copied."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Copy the item before, and return the next one."""
        copy = self._tee_copy
        copy.take()
        try:
            if self._tee_iterator is None:
                self._tee_iterator = iter(self._tee_stream)
            item = next(self._tee_iterator)
        except BaseException as error:
            copy.end(reason_of(error), error)
            raise
        copy.hold(item)
        return item

    def __enter__(self) -> Self:
        enter = getattr(type(self._tee_manager), "__enter__", None)
        if enter is not None:
            self._tee_entered(enter(self._tee_manager))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tee_copy.end("cancelled")
        leave = getattr(type(self._tee_manager), "__exit__", None)
        result: bool | None = leave(self._tee_manager, kind, error, trace) if leave is not None else None
        return result


class AsyncTee(_Wrapper):
    """An async stream that is copied."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Copy the item before, and return the next one."""
        copy = self._tee_copy
        copy.take()
        try:
            if self._tee_iterator is None:
                self._tee_iterator = aiter(self._tee_stream)
            item = await anext(self._tee_iterator)
        except BaseException as error:
            copy.end(reason_of(error), error)
            raise
        copy.hold(item)
        return item

    async def __aenter__(self) -> Self:
        enter = getattr(type(self._tee_manager), "__aenter__", None)
        if enter is not None:
            self._tee_entered(await enter(self._tee_manager))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tee_copy.end("cancelled")
        leave = getattr(type(self._tee_manager), "__aexit__", None)
        result: bool | None = (
            await leave(self._tee_manager, kind, error, trace) if leave is not None else None
        )
        return result


class SyncAndAsyncTee(SyncTee, AsyncTee):
    """A stream that can be iterated both ways."""


_WRAPPERS: Final[dict[tuple[bool, bool], type[_Wrapper]]] = {
    (True, False): SyncTee,
    (False, True): AsyncTee,
    (True, True): SyncAndAsyncTee,
}
