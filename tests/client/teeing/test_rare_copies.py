"""Test what callers and SDKs seldom do with a stream that is copied."""

from __future__ import annotations

from contextlib import aclosing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pydantic import BaseModel

from deltaloom import tee
from deltaloom.teeing import counters as counts
from deltaloom.teeing.counting import TeeCounters
from deltaloom.teeing.google_errors import end_copies_at_errors, restore
from deltaloom.teeing.http_bodies import copied_body
from deltaloom.teeing.iterables import SyncTee
from deltaloom.teeing.sdk_events import message_of
from deltaloom.teeing.stream_copy import StreamCopy
from tests.client.dialects.streams import SAMPLES, body_of
from tests.client.teeing.recorder import Faulty, Recorder, expected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CHAT = body_of(SAMPLES["chat refusal"])


class SyncBody(httpx2.SyncByteStream):
    """A body of one chunk, with an attribute of its own."""

    own = "x"
    closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield CHAT

    def close(self) -> None:
        """Count a call."""
        self.closed += 1


class ChunksOfAList:
    """An async iterator that cannot be closed."""

    def __init__(self) -> None:
        self._chunks = [CHAT]

    def __aiter__(self) -> ChunksOfAList:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk."""
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()


class AsyncBody(httpx2.AsyncByteStream):
    """The same for async clients."""

    own = "x"
    closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return ChunksOfAList()

    async def aclose(self) -> None:
        """Count a call."""
        self.closed += 1


def copy_to(recorder: Recorder) -> StreamCopy:
    """Return a copy without context."""
    return StreamCopy(recorder, {})


def test_copied_body_is_read_and_closed_as_before() -> None:
    """Yield the same bytes, keep the body's own attributes, and close the body."""
    recorder, inner = Recorder(), SyncBody()
    body = copied_body(inner, copy_to(recorder))
    assert (b"".join(body), body.own, recorder.only.ended) == (CHAT, "x", 1)
    body.close()
    assert inner.closed == 1
    assert recorder.events == expected(CHAT)


async def test_copied_async_body_needs_no_iterator_that_can_be_closed() -> None:
    """Yield the same bytes from an iterator without `aclose`, and close the body."""
    recorder, inner = Recorder(), AsyncBody()
    body = copied_body(inner, copy_to(recorder))
    assert [each async for each in body] == [CHAT]
    assert body.own == "x"
    await body.aclose()
    assert inner.closed == 1
    assert recorder.events == expected(CHAT)


@pytest.mark.parametrize("kind", [SyncBody, AsyncBody])
def test_copy_may_end_while_the_body_is_open(kind: type[Any]) -> None:
    """End the copy as interrupted when nothing more will be read, and leave the body as it is."""
    copy, inner = copy_to(recorder := Recorder()), kind()
    copy.hold(CHAT[:100])
    copied_body(inner, copy).end_copy()
    assert recorder.events == expected(CHAT[:100], "interrupted")
    assert inner.closed == 0


def test_value_that_is_no_body_is_refused() -> None:
    """Refuse another value than a body of httpx."""
    with pytest.raises(TypeError, match="'list' is no stream of httpx"):
        copied_body([CHAT], copy_to(Recorder()))


def test_faults_at_many_places_take_no_more_memory() -> None:
    """Count faults of further places together, and one that was never raised."""
    counters = TeeCounters()
    for number in range(150):
        counters.fault(type(f"Fault{number}", (Exception,), {})())
    assert len(counters.faults) == 101
    assert counters.faults["Fault0 at ?"] == 1
    assert counters.faults["elsewhere"] == 50
    assert (counters.responses, counters.ended, counters.errors_left_out) == (0, 0, 0)


def test_wrapper_that_was_not_initialised_raises_no_other_error() -> None:
    """Raise `AttributeError`, as for any object without `__init__`, and end no copy."""
    wrapper = SyncTee.__new__(SyncTee)
    with pytest.raises(AttributeError, match="_tee_stream"):
        wrapper._tee_stream  # noqa: B018, SLF001 - as copy and pickle do
    del wrapper


def test_sync_stream_without_a_context_manager_may_be_used_in_a_with_block() -> None:
    """Enter and leave the wrapper of a stream that has no `with` of its own."""
    recorder = Recorder()
    wrapped: Any = tee(iter([CHAT]), recorder)
    with wrapped as stream:
        assert list(stream) == [CHAT]
    assert recorder.events == expected(CHAT)


async def test_async_stream_without_a_context_manager_may_be_used_in_a_with_block() -> None:
    """Enter and leave the wrapper of an async stream that has no `async with` of its own."""
    recorder = Recorder()
    wrapped: Any = tee(ChunksOfAList(), recorder)
    async with wrapped as stream:
        assert [each async for each in stream] == [CHAT]
    assert recorder.events == expected(CHAT)


def test_event_that_agents_add_is_no_message() -> None:
    """Return nothing for an event of the Agents SDK that no provider has sent."""
    assert message_of({"type": "agent_updated_stream_event", "new_agent": {}}) is None
    assert message_of(SimpleNamespace(type="run_item_stream_event")) is None


async def test_async_events_of_google_may_lack_a_close() -> None:
    """Yield the events of an iterator without `aclose`, and raise its errors without a response."""

    class Client:
        async def async_request_streamed(self, *, fails: bool) -> Any:
            return Failing() if fails else ChunksOfAList()

    class Failing(ChunksOfAList):
        async def __anext__(self) -> bytes:
            raise ValueError("no response")

    client = Client()
    end_copies_at_errors(client)
    events: Any = await client.async_request_streamed(fails=False)
    async with aclosing(events):
        assert [each async for each in events] == [CHAT]
    with pytest.raises(ValueError, match="no response"):
        [each async for each in await client.async_request_streamed(fails=True)]


def test_methods_of_a_class_are_given_back() -> None:
    """Leave a class that defines the methods itself as it was."""

    class Client:
        def request_streamed(self) -> Iterator[int]:
            yield 1

    before = dict(vars(Client))
    end_copies_at_errors(Client)
    assert list(Client().request_streamed()) == [1]
    assert dict(vars(Client)) != before
    restore(Client)
    assert dict(vars(Client)) == before


def test_event_of_mistral_is_in_its_data() -> None:
    """Return the provider's message of an event without a type of its own."""

    class Chunk(BaseModel):
        id: str

    assert message_of(SimpleNamespace(data=Chunk(id="x"))) == {"id": "x"}


def test_lines_of_text_are_copied_as_bytes_would_be() -> None:
    """Copy a body that the caller reads as text."""
    recorder = Recorder()
    assert "".join(tee(iter(CHAT.decode().splitlines(keepends=True)), recorder)) == CHAT.decode()
    assert recorder.events == expected(CHAT)


def test_fault_at_the_end_of_a_copy_is_counted() -> None:
    """Let the caller read to the end, and count the fault of a publisher that takes no last events."""
    before = sum(counts.faults.values())
    half = CHAT[:10]
    assert list(tee(iter([half]), Faulty("offer"))) == [half]
    assert sum(counts.faults.values()) == before + 1


def test_a_buffer_that_the_caller_empties_is_copied() -> None:
    """Copy what was in a buffer when the caller got it."""
    recorder = Recorder()
    for buffer in tee((bytearray(line) for line in CHAT.splitlines(keepends=True)), recorder):
        buffer.clear()
    assert recorder.events == expected(CHAT)


class Unknowable:
    """An event that does not even say what it is."""

    @property  # type: ignore[misc] # a plain attribute of `object`
    def __class__(self) -> type:
        """The class, which is not known."""
        raise RuntimeError


def released() -> memoryview:
    """Return a buffer that nobody can read."""
    buffer = memoryview(CHAT)
    buffer.release()
    return buffer


@pytest.mark.parametrize("make", [released, Unknowable])
def test_an_item_that_cannot_be_held_reaches_the_caller(make: Callable[[], object]) -> None:
    """End the copy, and count the fault once."""
    item, before = make(), sum(counts.faults.values())
    assert sum(each is item for each in tee([CHAT, item, CHAT, item], Recorder())) == 2
    assert sum(counts.faults.values()) == before + 1


def test_an_event_that_contains_itself_does_not_hold_up_the_caller() -> None:
    """Give up the copy of an event with more values than any has, at a bounded cost."""
    event: dict[str, Any] = {"type": "response.created"}
    event["a"] = event["b"] = event
    recorder, before = Recorder(), sum(counts.faults.values())
    assert sum(each is event for each in tee([event, event], recorder)) == 2
    assert sum(counts.faults.values()) == before + 1
    assert recorder.streams == []
