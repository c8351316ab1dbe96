"""Instrument HTTP clients: those of SDKs, single ones, or all of the process."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from typing import TYPE_CHECKING, Any, Final, TypeVar

from deltaloom.teeing.counting import counters
from deltaloom.teeing.endpoints import translation_of
from deltaloom.teeing.google_errors import api_client_class, end_copies_at_errors, restore
from deltaloom.teeing.http_bodies import copied_body
from deltaloom.teeing.stream_copy import StreamCopy, checked_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from deltaloom.teeing.stream_copy import CopyContext, EventPublisher

Client = TypeVar("Client")

_PATHS: Final = (
    ("_client",),  # openai, anthropic, groq, ollama
    ("_api_client", "_httpx_client"),  # google-genai
    ("_api_client", "_async_httpx_client"),
    ("sdk_configuration", "client"),  # mistralai
    ("sdk_configuration", "async_client"),
    ("_client_wrapper", "httpx_client", "httpx_client"),  # cohere
)
"""Attributes of SDKs that lead to their HTTP clients."""

_MODULES: Final = ("httpx", "httpx2")
_HOOK: Final = "_deltaloom_hook"
_COPIED: Final = "_deltaloom_copied"


class _Hook:
    """The publisher and context of an instrumented client or class.

    Args:
        publisher: publisher of the events.
        context: context of the responses.
        original: the attribute `send` of the client or class itself; None if it inherits the method.
    """

    def __init__(self, publisher: EventPublisher, context: CopyContext, original: Any) -> None:
        self.publisher: EventPublisher | None = publisher
        self.context = context
        self.original = original

    def see(self, response: Any) -> None:
        """Copy a response, from now on if its body is still to come."""
        publisher = self.publisher
        if publisher is None:
            return
        try:
            self._copy(response, publisher)
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            counters.fault(error)

    def _copy(self, response: Any, publisher: EventPublisher) -> None:
        request, headers = response.request, response.headers
        is_read = response.is_stream_consumed
        translation = translation_of(
            request.method,
            request.url.path,
            response.status_code,
            headers.get("content-type", ""),
            "" if is_read else headers.get("content-encoding", ""),
        )
        if translation is None or hasattr(response, _COPIED):
            return
        setattr(response, _COPIED, True)
        copy = StreamCopy(publisher, self.context, **translation)
        if is_read:
            copy.hold(response.content)
            copy.end("complete")
        else:
            response.stream = copied_body(response.stream, copy)


def instrument(client: Client, publisher: EventPublisher, **context: Unpack[CopyContext]) -> Client:
    """Copy the answers of models that this client gets, and return the client.

    Only answers to POST requests are copied whose path and content type are those of a known dialect.
    Headers, query and body of a request are never read. An HTTP error is copied if a policy is its reason. A
    second call replaces publisher and context.

    Args:
        client: client of an SDK (openai, anthropic, google-genai, mistralai, cohere, groq, ollama), or an
            httpx or httpx2 client, sync or async.
        publisher: publisher of the events.
        **context: context of the responses. A value may be a function, which is called for each response.

    Raises:
        TypeError: no HTTP client was found, or a name of the context is unknown.
    """
    checked = checked_context(context)
    found = list(_http_clients(client))
    if not found:
        raise TypeError(
            f"{type(client).__name__!r:.80} has no httpx client: give it one, and instrument that one"
        )
    for each in found:
        _instrument_one(each, publisher, checked)
    end_copies_at_errors(getattr(client, "_api_client", None))
    _warn_of_aiohttp(client)
    return client


def instrument_all(publisher: EventPublisher, **context: Unpack[CopyContext]) -> None:
    """Copy the answers of models that any httpx or httpx2 client of this process gets.

    The context of a client that is instrumented itself takes precedence. A second call replaces publisher and
    context. `uninstrument()` undoes it.

    Raises:
        TypeError: a name of the context is unknown.
    """
    checked = checked_context(context)
    for owner in _client_classes():
        _instrument_one(owner, publisher, checked)
    end_copies_at_errors(api_client_class())


def uninstrument(client: Any = None) -> None:
    """Stop copying the answers that a client gets; without a client, undo `instrument_all`.

    Streams that are being copied go on to their end. Nothing happens if the client was not instrumented.
    """
    owners: Iterator[Any] = _client_classes() if client is None else _http_clients(client)
    for owner in owners:
        hook = _hook_of(owner)
        if hook is not None:
            _restore(owner, hook)
    restore(api_client_class() if client is None else getattr(client, "_api_client", None))


def _restore(owner: Any, hook: _Hook) -> None:
    """Restore `send`, unless another library has wrapped it since: then the hook stays, and does nothing."""
    hook.publisher = None
    delattr(owner, _HOOK)
    if getattr(vars(owner).get("send"), _HOOK, None) is not hook:
        return
    if hook.original is None:
        del owner.send
    else:
        owner.send = hook.original


def _hook_of(owner: Any) -> _Hook | None:
    """Return the hook of a client or class itself, without that of its bases."""
    hook: _Hook | None = vars(owner).get(_HOOK)
    return hook


def _instrument_one(owner: Any, publisher: EventPublisher, context: CopyContext) -> None:
    """Wrap `send` of a client or of a class; if it is wrapped, replace publisher and context."""
    hook = _hook_of(owner)
    if hook is not None:
        hook.publisher, hook.context = publisher, context
        return
    hook = _Hook(publisher, context, vars(owner).get("send"))
    send = owner.send
    is_class = isinstance(owner, type)

    def sees(args: tuple[Any, ...]) -> bool:
        """Return True unless the client has a hook of its own, which copies with its own context."""
        return not (is_class and _HOOK in vars(args[0]))

    if inspect.iscoroutinefunction(send):

        @functools.wraps(send)
        async def wrapped(*args: Any, **options: Any) -> Any:
            response = await send(*args, **options)
            if sees(args):
                hook.see(response)
            return response

    else:

        @functools.wraps(send)
        def wrapped(*args: Any, **options: Any) -> Any:
            response = send(*args, **options)
            if sees(args):
                hook.see(response)
            return response

    setattr(wrapped, _HOOK, hook)
    setattr(owner, _HOOK, hook)
    owner.send = wrapped


def _client_classes() -> Iterator[type]:
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        yield from (module.Client, module.AsyncClient)


def _is_http_client(value: Any) -> bool:
    return any(
        base.__module__.partition(".")[0] in _MODULES and base.__name__ in {"Client", "AsyncClient"}
        for base in type(value).__mro__
    )


def _http_clients(client: Any) -> Iterator[Any]:
    """Yield the HTTP clients of an SDK's client, or the client itself if it is one."""
    if _is_http_client(client):
        yield client
        return
    for path in _PATHS:
        found = client
        for name in path:
            found = getattr(found, name, None)
        if _is_http_client(found):
            yield found


def _warn_of_aiohttp(client: Any) -> None:
    """Warn if google-genai sends its async requests with aiohttp, which has no such hook."""
    uses_aiohttp = getattr(getattr(client, "_api_client", None), "_use_aiohttp", None)
    if callable(uses_aiohttp) and uses_aiohttp():
        warnings.warn(
            "google-genai sends async requests with aiohttp, which are not copied: "
            "give it HttpOptions(httpx_async_client=httpx2.AsyncClient())",
            RuntimeWarning,
            stacklevel=3,
        )
