"""Wrap the body of an httpx response so that its bytes are also copied."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from deltaloom.teeing.stream_copy import reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from deltaloom.teeing.stream_copy import StreamCopy


def copied_body(body: Any, copy: StreamCopy) -> Any:
    """Return a body that yields the same bytes and copies each after the caller has it.

    Args:
        body: an instance of `SyncByteStream` or `AsyncByteStream`, of httpx or httpx2.
        copy: the copy.

    Raises:
        TypeError: the body is neither.
    """
    for base in type(body).__mro__:
        if base.__name__ == "AsyncByteStream":
            return _async_class(base)(body, copy)
        if base.__name__ == "SyncByteStream":
            return _sync_class(base)(body, copy)
    raise TypeError(f"{type(body).__name__!r:.80} is no stream of httpx")


@cache
def _sync_class(base: Any) -> Any:
    """Return the class for bodies of sync clients. httpx asks for its own base, of which there are two."""

    class SyncCopiedBody(base):  # type: ignore[misc] # a class known only at run time
        def __init__(self, body: Any, copy: StreamCopy) -> None:
            self._body = body
            self._copy = copy

        def __iter__(self) -> Iterator[bytes]:
            copy = self._copy
            try:
                for chunk in self._body:
                    copy.hold(chunk)
                    yield chunk
                    copy.take()
            except BaseException as error:
                copy.end(reason_of(error))
                raise
            copy.end("complete")

        def end_copy(self) -> None:
            """End the copy: nothing more will be read."""
            self._copy.end("interrupted")

        def close(self) -> None:
            self._copy.end("cancelled")
            self._body.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["_body"], name)

    return SyncCopiedBody


@cache
def _async_class(base: Any) -> Any:
    """Return the class for bodies of async clients."""

    class AsyncCopiedBody(base):  # type: ignore[misc] # a class known only at run time
        def __init__(self, body: Any, copy: StreamCopy) -> None:
            self._body = body
            self._copy = copy

        async def __aiter__(self) -> AsyncIterator[bytes]:
            copy = self._copy
            chunks = aiter(self._body)
            try:
                async for chunk in chunks:
                    copy.hold(chunk)
                    yield chunk
                    copy.take()
            except BaseException as error:
                copy.end(reason_of(error))
                raise
            finally:
                if (close := getattr(chunks, "aclose", None)) is not None:
                    await close()
            copy.end("complete")

        def end_copy(self) -> None:
            """End the copy: nothing more will be read."""
            self._copy.end("interrupted")

        async def aclose(self) -> None:
            self._copy.end("cancelled")
            await self._body.aclose()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["_body"], name)

    return AsyncCopiedBody
