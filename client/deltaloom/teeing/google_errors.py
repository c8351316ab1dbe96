"""End the copy of a stream when google-genai raises an error in place of its next event.

Other SDKs close the response then. google-genai leaves that to the garbage collector, which comes late, since
the traceback of the error refers to the response. So the two methods that yield events are wrapped.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_SYNC: Final = "request_streamed"
_ASYNC: Final = "async_request_streamed"
_ORIGINAL: Final = "_deltaloom_original"


def end_copies_at_errors(owner: Any) -> None:
    """Wrap the methods of google-genai's API client or of its class; anything else is left as it is."""
    for name, wrapper in ((_SYNC, _wrapped), (_ASYNC, _wrapped_async)):
        method = getattr(owner, name, None)
        if callable(method) and not hasattr(method, _ORIGINAL):
            wrapped = wrapper(method)
            setattr(wrapped, _ORIGINAL, vars(owner).get(name))
            setattr(owner, name, wrapped)


def restore(owner: Any) -> None:
    """Undo `end_copies_at_errors`, unless another library has wrapped the methods since."""
    for name in (_SYNC, _ASYNC):
        method = vars(owner).get(name) if hasattr(owner, "__dict__") else None
        if method is not None and hasattr(method, _ORIGINAL):
            original = getattr(method, _ORIGINAL)
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def api_client_class() -> Any:
    """Return the class of google-genai's API clients; None if the SDK is not imported."""
    return getattr(sys.modules.get("google.genai._api_client"), "BaseApiClient", None)


def _wrapped(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(method)
    def request_streamed(*args: Any, **options: Any) -> Iterator[Any]:
        try:
            yield from method(*args, **options)
        except Exception as error:
            _end_copy(error)
            raise

    return request_streamed


def _wrapped_async(method: Callable[..., Any]) -> Callable[..., Any]:
    async def seen(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for event in events:
                yield event
        except Exception as error:
            _end_copy(error)
            raise
        finally:
            if (close := getattr(events, "aclose", None)) is not None:
                await close()

    @functools.wraps(method)
    async def async_request_streamed(*args: Any, **options: Any) -> AsyncIterator[Any]:
        return seen(await method(*args, **options))

    return async_request_streamed


def _end_copy(error: Exception) -> None:
    """End the copy of the response to which the SDK's error refers."""
    response = getattr(getattr(error, "response", None), "response_stream", None)
    end = getattr(getattr(response, "stream", None), "end_copy", None)
    if end is not None:
        end()
