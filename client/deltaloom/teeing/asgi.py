"""ASGI middleware for applications that serve a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom.teeing.counting import counters
from deltaloom.teeing.endpoints import translation_of
from deltaloom.teeing.stream_copy import StreamCopy, checked_context, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Unpack

    from deltaloom.dialects import EndReason
    from deltaloom.teeing.stream_copy import CopyContext, EventPublisher

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class TeeMiddleware:
    """Copies the answers of a model that an ASGI application serves.

    Each piece of a body is sent first and copied after. Headers, query and body of a request are never read.

    `app.add_middleware(TeeMiddleware, publisher=publisher)` adds it to FastAPI and Starlette. `vllm serve
    --middleware` names a class that it makes with the application alone: a subclass gives the publisher.

    Args:
        app: the application.
        publisher: publisher of the events.
        **context: context of the responses. A value may be a function, which is called for each response.

    Raises:
        TypeError: a name of the context is unknown.
    """

    def __init__(self, app: Application, publisher: EventPublisher, **context: Unpack[CopyContext]) -> None:
        self._app = app
        self._publisher = publisher
        self._context = checked_context(context)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        answer = _Answer(self._publisher, self._context, scope["path"])

        async def receive_and_see() -> Message:
            message = await receive()
            answer.client_has_left |= message["type"] == "http.disconnect"
            return message

        async def send_and_copy(message: Message) -> None:
            try:
                await send(message)
            except Exception:
                answer.client_has_left = True  # servers raise an OSError for a client that has left
                raise
            answer.sent(message)

        try:
            await self._app(scope, receive_and_see, send_and_copy)
        except BaseException as error:
            answer.end(reason_of(error))
            raise
        answer.end("interrupted")


class _Answer:
    """An answer that is being sent.

    Args:
        publisher: publisher of the events.
        context: context of the response.
        path: path of the request.
    """

    def __init__(self, publisher: EventPublisher, context: CopyContext, path: str) -> None:
        self._publisher = publisher
        self._context = context
        self._path = path
        self._copy: StreamCopy | None = None
        self.client_has_left = False

    def sent(self, message: Message) -> None:
        """Copy a message of the application that was sent."""
        try:
            if message["type"] == "http.response.start":
                self._begin(message)
            elif message["type"] == "http.response.body" and self._copy is not None:
                self._copy.hold(message.get("body", b""))
                self._copy.take()
                if not message.get("more_body", False):
                    self._copy.end("complete")
        except Exception as error:  # noqa: BLE001 - no fault of the copy may reach the caller
            counters.fault(error)

    def end(self, reason: EndReason) -> None:
        """End the copy, unless the end of the body has ended it."""
        if self._copy is not None:
            self._copy.end("cancelled" if self.client_has_left else reason)

    def _begin(self, message: Message) -> None:
        headers = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in message["headers"]}
        translation = translation_of(
            "POST",
            self._path,
            message["status"],
            headers.get(b"content-type", ""),
            headers.get(b"content-encoding", ""),
        )
        if translation is not None:
            self._copy = StreamCopy(self._publisher, self._context, **translation)
