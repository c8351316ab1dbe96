"""Test `tee`: the caller gets its stream unchanged, and the copy has what the caller got."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import pytest
from openai import APIError, Stream
from openai.types.chat import ChatCompletionChunk

from deltaloom import tee
from deltaloom.teeing import counters
from tests.client.dialects.streams import SAMPLES, body_of, chunk, converse, message
from tests.client.teeing.recorder import Faulty, Recorder, expected, with_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

CHAT = SAMPLES["chat refusal"].messages
_AS_BYTES_ONLY = {
    "chat one choice without an end",  # SDKs keep [DONE] to themselves
    "converse intervened",  # two frames are one object there
}
PARSED = [
    name
    for name, sample in SAMPLES.items()
    if sample.dialect != "bedrock.invoke_model" and name not in _AS_BYTES_ONLY
]
"""Samples whose events an SDK gives as objects. It decodes the chunks of InvokeModel."""


class Left(BaseException):
    """An exception that is no Exception, as those that cancel tasks."""


async def async_stream(items: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield the items."""
    for item in items:
        yield item


async def read(stream: AsyncIterator[Any]) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


def failing(items: Iterable[Any], error: BaseException) -> Iterator[Any]:
    """Yield the items, then raise the error."""
    yield from items
    raise error


@pytest.mark.parametrize("name", PARSED)
def test_events_are_copied_as_their_bytes_would_be(name: str) -> None:
    """Copy parsed events, and give the events that a translator gives for the body."""
    sample = SAMPLES[name]
    recorder = Recorder()
    items = [dict(each) for each in sample.messages]
    assert list(tee(iter(items), recorder, dialect=sample.dialect)) == items
    assert recorder.events == expected(body_of(sample), dialect=sample.dialect)
    assert recorder.only.ended == 1


@pytest.mark.parametrize("name", SAMPLES)
async def test_bytes_are_copied(name: str) -> None:
    """Copy the bytes of a body, in pieces, of sync and async streams; detect the dialect."""
    body = body_of(SAMPLES[name])
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    for is_async in (False, True):
        recorder = Recorder()
        if is_async:
            assert [piece async for piece in tee(async_stream(pieces), recorder)] == pieces
        else:
            assert list(tee(iter(pieces), recorder)) == pieces
        assert recorder.events == expected(body)


def test_the_context_is_published_once() -> None:
    """Give tenant and others, provider and model to the publisher; call functions when the stream begins."""
    recorder = Recorder()
    list(tee(CHAT, recorder, tenant="acme", reference=lambda: "ref-1", traceparent=None, provider="azure"))
    assert recorder.only.context == {
        "tenant": "acme",
        "reference": "ref-1",
        "traceparent": None,
        "provider": "azure",
        "model": "gpt-5",
        "dialect": "openai.chat",
        "upstream_response_id": "chatcmpl-1",
    }


def test_a_mistaken_call_is_refused() -> None:
    """Refuse an unknown context, an unknown dialect, and a coroutine that was not awaited."""
    with pytest.raises(TypeError, match="context 'user' is unknown"):
        tee(CHAT, Recorder(), user="x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="dialect 'x' is unknown"):
        tee(CHAT, Recorder(), dialect="x")
    coroutine: Any = asyncio.sleep(0)
    with closing(coroutine), pytest.raises(TypeError, match="was it awaited"):
        tee(coroutine, Recorder())


def test_an_item_reaches_the_caller_before_the_copy() -> None:
    """Copy an item only when the caller asks for the next one, and ask for none in advance."""
    recorder = Recorder()
    asked: list[int] = []

    def items() -> Iterator[Any]:
        for number, each in enumerate(CHAT):
            asked.append(number)
            yield each

    stream = tee(items(), recorder)
    assert not asked
    next(stream)
    next(stream)
    assert (asked, recorder.streams[0].events[1:]) == ([0, 1], [])
    next(stream)
    assert recorder.types == ["response.created", "response.refusal.delta"]


def test_an_early_close_cancels() -> None:
    """End the copy as cancelled if the caller closes, with the item that it had."""
    recorder = Recorder()
    with closing(tee(iter_of(CHAT), recorder)) as stream:
        next(stream)
        next(stream)
    assert recorder.types == ["response.created", "response.refusal.delta", "response.cancelled"]
    assert recorder.end["incomplete_details"] == {"reason": "client_disconnected"}
    with pytest.raises(StopIteration):
        next(stream)


def iter_of(items: Iterable[Any]) -> Any:
    """Return a generator of the items."""
    return (item for item in items)


def test_a_dropped_stream_cancels() -> None:
    """End the copy when the caller leaves a loop without closing."""
    recorder = Recorder()
    for _ in tee(iter_of(CHAT), recorder):
        break
    gc.collect()
    assert recorder.end["status"] == "cancelled"


def test_a_close_after_the_end_changes_nothing() -> None:
    """Keep the provider's end if the caller stops after it, without reading on."""
    recorder = Recorder()
    with closing(tee(iter_of(message(stop="refusal")), recorder)) as stream:
        for event in stream:
            if event["type"] == "message_stop":
                break
    assert recorder.end["incomplete_details"]["reason"] == "refusal"


def test_the_end_of_the_provider_ends_the_copy() -> None:
    """End the stream of the publisher with the provider's end, also if nobody reads on or closes."""
    recorder = Recorder()
    stream = tee(iter_of([*message(stop="refusal"), {"type": "ping"}]), recorder)
    while next(stream)["type"] != "message_stop":
        pass
    assert not recorder.only.ended
    next(stream)
    assert recorder.end["incomplete_details"]["reason"] == "refusal"


def test_a_stream_without_items_is_not_copied() -> None:
    """Publish nothing of a stream that gave nothing."""
    recorder = Recorder()
    assert list(tee(iter_of([]), recorder)) == []
    with closing(tee(iter_of(CHAT), recorder)):
        pass
    assert recorder.streams == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OSError("reset"), "failed", "stream_interrupted"),
        (GeneratorExit(), "cancelled", "client_disconnected"),
        (KeyboardInterrupt(), "cancelled", "client_disconnected"),
        (asyncio.CancelledError(), "cancelled", "client_disconnected"),
        (Left(), "cancelled", "client_disconnected"),
    ],
)
async def test_errors_of_the_stream_stay_as_they_are(error: BaseException, status: str, reason: str) -> None:
    """Raise the very exception of the stream, and end the copy."""
    for is_async in (False, True):
        recorder = Recorder()

        async def items() -> AsyncIterator[Any]:
            for each in CHAT[:2]:
                yield each
            raise error

        if is_async:
            with pytest.raises(type(error)) as raised:
                await read(tee(items(), recorder))
        else:
            with pytest.raises(type(error)) as raised:
                list(tee(failing(CHAT[:2], error), recorder))
        assert raised.value is error
        assert recorder.end["status"] == status
        details = recorder.end.get("error") or recorder.end["incomplete_details"]
        assert details.get("code", details.get("reason")) == reason


async def test_a_cancelled_task_cancels_the_copy() -> None:
    """End the copy if the task that waits for an item is cancelled."""
    recorder = Recorder()
    waiting = asyncio.Event()

    async def items() -> AsyncIterator[Any]:
        for each in CHAT[:2]:
            yield each
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(read(tee(items(), recorder)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.end["status"] == "cancelled"


async def test_aclose_cancels() -> None:
    """End the copy if the caller calls `aclose`, and close the stream."""
    recorder = Recorder()
    source = async_stream(CHAT)
    async with aclosing(tee(cast("Any", source), recorder)) as stream:
        await anext(stream)
    assert recorder.end["status"] == "cancelled"
    assert [item async for item in source] == []


@dataclass
class Managed:
    """A stream of an SDK: a context manager with attributes."""

    items: list[Any]
    response: str = "the response"
    left_with: Any = None
    closed: bool = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *left_with: object) -> bool:
        self.left_with = left_with[1]
        return isinstance(self.left_with, KeyError)

    def close(self) -> str:
        """Close the stream."""
        self.closed = True
        return "closed"


def test_context_managers_and_attributes_are_those_of_the_stream() -> None:
    """Delegate attributes, `with` and `close`, and pass for an instance of the stream's class."""
    recorder = Recorder()
    source = Managed(list(CHAT))
    with tee(source, recorder) as stream:
        assert isinstance(stream, Managed)
        assert (stream.response, repr(stream)) == ("the response", repr(source))
        next(iter(stream))
        raise KeyError  # the stream's __exit__ swallows it
    assert isinstance(source.left_with, KeyError)
    assert recorder.end["status"] == "cancelled"
    assert stream.close() == "closed"
    assert source.closed
    with pytest.raises(AttributeError, match="missing"):
        stream.missing  # type: ignore[attr-defined] # noqa: B018


@dataclass
class Manager:
    """A context manager that returns a stream, as `client.messages.stream()`."""

    items: list[Any]
    left: int = 0

    def __enter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __exit__(self, *_: object) -> None:
        self.left += 1

    async def __aenter__(self) -> AsyncIterator[Any]:
        return async_stream(self.items)

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


async def test_a_manager_that_returns_a_stream() -> None:
    """Copy the stream that a manager returns."""
    manager = Manager(list(CHAT))
    first, second = Recorder(), Recorder()
    with tee(manager, first) as stream:
        assert list(stream) == CHAT
    async with tee(manager, second) as items:
        assert [item async for item in items] == CHAT
    assert first.events == second.events == expected(body_of(SAMPLES["chat refusal"]))
    assert manager.left == 2


@pytest.mark.parametrize("method", ["stream", "offer", "end"])
def test_no_fault_of_the_copy_reaches_the_caller(method: str) -> None:
    """Count the fault, without its message, and go on for the caller."""
    before = sum(counters.faults.values())
    assert list(tee(CHAT, Faulty(method))) == CHAT
    assert sum(counters.faults.values()) == before + 1
    assert any(place.startswith("RuntimeError at recorder.py:") for place in counters.faults)
    assert "secret" not in str(counters.faults)


def test_a_fault_of_the_context_costs_only_the_context() -> None:
    """Copy the stream if a function of the context fails."""
    recorder = Recorder()

    def fails() -> str:
        raise LookupError

    list(tee(CHAT, recorder, tenant=fails))
    assert recorder.events == expected(body_of(SAMPLES["chat refusal"]))


def test_odd_items_pass() -> None:
    """Give any item to the caller, and copy those that are events."""
    recorder = Recorder()
    odd: list[Any] = [None, 1, object(), [1], {}, {1: 2}, {"type": 5}, {"type": "chunk"}]
    items = [*odd, *CHAT]
    before = counters.faults
    assert list(tee(items, recorder, dialect="openai.chat")) == items
    assert recorder.events == expected(body_of(SAMPLES["chat refusal"]))
    assert counters.faults == before


def test_the_models_of_an_sdk() -> None:
    """Copy pydantic models, with the fields that the SDK does not know."""
    recorder = Recorder()
    sample = SAMPLES["chat reasoning in two fields"]
    items = [ChatCompletionChunk.construct(**each) for each in sample.messages]
    assert list(tee(items, recorder)) == items
    assert recorder.events == expected(body_of(sample))


def test_an_error_that_an_sdk_raises() -> None:
    """End with the error of the provider, which SDKs raise in place of an event."""
    body = {"code": "content_filter", "message": "no"}
    error = APIError("no", cast("Any", None), body=body)
    recorder = Recorder()
    with pytest.raises(APIError) as raised:
        list(tee(failing(CHAT[:2], error), recorder))
    assert raised.value is error
    assert recorder.end["error"]["code"] == "content_filter"
    assert recorder.end["error"]["reason_class"] == "safety"


@pytest.mark.parametrize(
    ("items", "response"),
    [
        (CHAT[:2], {"Error": {"Code": "modelStreamErrorException", "Message": "no"}}),
        (converse({"text": "Hi"})[:2], {"Error": {"Code": "modelStreamErrorException", "Message": "no"}}),
        (message()[:2], {"error": {"type": "modelStreamErrorException", "message": "no"}}),
    ],
)
def test_errors_of_other_sdks(items: list[Any], response: dict[str, Any]) -> None:
    """Read errors as botocore and Google's SDK keep them."""
    error = ValueError()
    error.response = response  # type: ignore[attr-defined]
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"^$"):
        list(tee(failing(items, error), recorder))
    assert recorder.end["error"]["code"] == "modelStreamErrorException"


def test_an_answer_that_an_sdk_cannot_parse() -> None:
    """Call the stream interrupted if the exception has an answer, but no error of the provider."""
    error = ValueError()
    error.body = json.dumps({"data": chunk()})  # type: ignore[attr-defined]
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"^$"):
        list(tee(failing(CHAT[:2], error), recorder))
    assert recorder.end["error"]["code"] == "stream_interrupted"


def test_an_agent_that_answers_twice() -> None:
    """Begin a new response for each answer in a stream of the Agents SDK, and leave out its own events."""
    answer = [dict(each) for each in SAMPLES["responses"].messages]
    items: list[Any] = []
    for event in answer * 2:
        items += [{"type": "raw_response_event", "data": event}, {"type": "run_item_stream_event"}]
    recorder = Recorder()
    list(tee(items, recorder))
    first, second = recorder.streams
    want = expected(body_of(SAMPLES["responses"]))
    assert with_id(first) == with_id(second) == want
    assert (first.ended, second.ended, first.response_id == second.response_id) == (1, 1, False)


def test_a_response_in_the_background_has_no_end() -> None:
    """Publish nothing of an answer that says that the response goes on."""
    recorder = Recorder()
    list(tee([{"object": "response", "status": "queued", "id": "resp_1"}], recorder))
    assert recorder.streams == []


def test_a_wrapped_stream_has_the_class_of_its_sdk() -> None:
    """Pass the check that frameworks make."""
    stream: Any = Stream.__new__(Stream)
    wrapped = tee(stream, Recorder())
    assert isinstance(wrapped, Stream)
