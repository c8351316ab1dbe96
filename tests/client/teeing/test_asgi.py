"""Test the ASGI middleware: an application serves the same, and its answers are copied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import TeeMiddleware
from deltaloom.teeing import counters
from tests.client.dialects.streams import HTTP_ERRORS, SAMPLES, body_of, json_lines
from tests.client.teeing.recorder import Faulty, Recorder, expected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

CHAT = body_of(SAMPLES["chat refusal"])
PIECES = [CHAT[start : start + 100] for start in range(0, len(CHAT), 100)]


def request(path: str = "/v1/chat/completions", method: str = "POST", kind: str = "http") -> dict[str, Any]:
    """Return the scope of a request."""
    return {"type": kind, "method": method, "path": path, "headers": [(b"authorization", b"canary")]}


def start(status: int = 200, content_type: bytes = b"text/event-stream") -> dict[str, Any]:
    """Return the message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": [(b"Content-Type", content_type)]}


def bodies(pieces: Sequence[bytes], *, is_whole: bool = True) -> list[dict[str, Any]]:
    """Return the messages of a body."""
    messages = [{"type": "http.response.body", "body": piece, "more_body": True} for piece in pieces]
    return [*messages, {"type": "http.response.body"}] if is_whole else messages


def serving(messages: Sequence[Any], error: BaseException | None = None) -> Callable[..., Awaitable[None]]:
    """Return an application that sends messages, and raises an error if there is one."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del scope
        for message in messages:
            await send(message)
        if error:
            raise error
        await receive()

    return application


async def serve(application: Any, publisher: Any, scope: Any = None, **options: Any) -> list[Any]:
    """Serve a request, and return the messages that were sent.

    Options are `left_with`, the message that the server gives, and `fails_at`, the number of the message that
    the server cannot send.
    """
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": options.get("left_with", "http.request"), "body": b"canary"}

    async def send(message: Any) -> None:
        if len(sent) == options.get("fails_at"):
            raise OSError
        sent.append(message)

    await TeeMiddleware(application, publisher, tenant="acme")(scope or request(), receive, send)
    return sent


async def test_an_answer_is_the_same_and_is_copied() -> None:
    """Send every message unchanged, and copy the body."""
    messages = [start(), *bodies(PIECES)]
    recorder = Recorder()
    assert await serve(serving(messages), recorder) == messages
    assert recorder.events == expected(CHAT)
    assert recorder.only.ended == 1
    assert recorder.only.context["tenant"] == "acme"


async def test_a_piece_is_sent_before_it_is_copied() -> None:
    """Send first, so that the copy delays nothing."""
    recorder = Recorder()
    copied_before: list[int] = []

    async def receive() -> Any:
        raise NotImplementedError

    async def send(_: Any) -> None:
        copied_before.append(sum(len(stream.events) for stream in recorder.streams))

    application = serving([start(), *bodies([CHAT], is_whole=False)], KeyError())
    with pytest.raises(KeyError):
        await TeeMiddleware(application, recorder)(request(), receive, send)
    assert copied_before == [0, 0]
    assert recorder.events == expected(CHAT)


@pytest.mark.parametrize(
    ("scope", "begin"),
    [
        (request("/v1/embeddings"), start(content_type=b"application/json")),
        (request(method="GET"), start()),
        (request(), start(content_type=b"text/html")),
        (request(kind="websocket"), start()),
    ],
)
async def test_other_answers_are_not_copied(scope: Any, begin: Any) -> None:
    """Leave alone what is not an answer of a model."""
    recorder = Recorder()
    messages = [begin, *bodies(PIECES)]
    assert await serve(serving(messages), recorder, scope) == messages
    assert recorder.streams == []


async def test_http_errors_are_copied_if_they_are_blocks() -> None:
    """Copy the 4xx of a policy."""
    _, status, answer, reason, _ = HTTP_ERRORS["azure"]
    recorder = Recorder()
    begin = start(status, b"application/json")
    await serve(serving([begin, *bodies([json_lines([answer])])]), recorder)
    assert recorder.end["error"]["code"] == reason


@pytest.mark.parametrize(
    ("error", "options", "status"),
    [
        (ValueError(), {}, "failed"),
        (None, {}, "failed"),
        (None, {"left_with": "http.disconnect"}, "cancelled"),
        (None, {"fails_at": 3}, "cancelled"),
        (asyncio.CancelledError(), {}, "cancelled"),
    ],
)
async def test_an_answer_without_its_end(
    error: BaseException | None, options: dict[str, Any], status: str
) -> None:
    """End the copy as interrupted if the application fails, and as cancelled if the client has left."""
    recorder = Recorder()
    pieces = bodies(PIECES[:3], is_whole=False)
    application = serving([start(), *pieces], error)
    if error or "fails_at" in options:
        with pytest.raises((type(error),) if error else OSError):
            await serve(application, recorder, **options)
    else:
        await serve(application, recorder, **options)
    assert recorder.end["status"] == status


@pytest.mark.parametrize("method", ["stream", "offer", "end"])
async def test_no_fault_of_the_copy_reaches_the_application(method: str) -> None:
    """Count the fault, and send the answer."""
    before = sum(counters.faults.values())
    messages = [start(), *bodies(PIECES)]
    assert await serve(serving(messages), Faulty(method)) == messages
    assert sum(counters.faults.values()) == before + 1


async def test_an_odd_message_passes() -> None:
    """Send messages that are not as ASGI has them, and count them."""
    before = sum(counters.faults.values())
    messages: list[Any] = [{"type": "http.response.start", "status": 200}, *bodies(PIECES)]
    recorder = Recorder()
    assert await serve(serving(messages), recorder) == messages
    assert recorder.streams == []
    assert sum(counters.faults.values()) == before + 1


async def test_a_subclass_gives_the_publisher() -> None:
    """Make the middleware with the application alone, as `vllm serve --middleware` does."""
    recorder = Recorder()

    class Copied(TeeMiddleware):
        def __init__(self, app: Any) -> None:
            super().__init__(app, recorder)

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    await Copied(serving([start(), *bodies(PIECES)]))(request(), nothing, nothing)
    assert recorder.events == expected(CHAT)


def test_a_mistaken_context_is_refused() -> None:
    """Refuse an unknown name when the application starts."""
    with pytest.raises(TypeError, match="context 'user' is unknown"):
        TeeMiddleware(serving([]), Recorder(), user="x")  # type: ignore[call-arg]
