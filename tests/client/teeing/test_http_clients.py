"""Test `instrument`: the client gets the same answers, and the copy has what the provider sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import zlib
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from aiohttp import web

from deltaloom import instrument, instrument_all, uninstrument
from deltaloom.teeing import counters
from tests.client.dialects.streams import HTTP_ERRORS, SAMPLES, WHOLE_ANSWERS, body_of
from tests.client.teeing.recorder import Faulty, Recorder, expected
from tests.receivers import OVER, receiving
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.receivers import Behaviour, Receiver

CANARY = "canary-7c1f"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""A context without certificates, since loading them takes longer than a test."""
PATHS = {
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
    "anthropic.messages": "/v1/messages",
    "gemini.interactions": "/v1beta/interactions",
    "gemini.generate_content": "/v1beta/models/gemini-3:streamGenerateContent",
    "bedrock.converse": "/model/nova/converse-stream",
    "bedrock.agents": "/agents/A/agentAliases/B/sessions/C/text",
    "bedrock.invoke_model": "/model/claude/invoke-with-response-stream",
    "cohere.chat": "/v2/chat",
    "ollama.chat": "/api/chat",
}
CHAT = body_of(SAMPLES["chat refusal"])
CHAT_PATH = PATHS["openai.chat"]


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    yield
    uninstrument()


def content_type_of(dialect: str) -> str:
    """Return the content type of a dialect's streams."""
    if dialect.startswith("bedrock"):
        return "application/vnd.amazon.eventstream"
    return "application/x-ndjson" if dialect == "ollama.chat" else "text/event-stream; charset=utf-8"


def streaming(body: bytes, content_type: str = "text/event-stream", encoding: str = "") -> Behaviour:
    """Return a behaviour that sends a body in pieces."""

    async def behave(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": content_type} | ({"Content-Encoding": encoding} if encoding else {})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for start in range(0, len(body), 100):
            await response.write(body[start : start + 100])
        return response

    return behave


def whole(body: Any, status: int = 200, content_type: str = "application/json") -> Behaviour:
    """Return a behaviour that sends JSON at once."""

    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=json.dumps(body).encode(), content_type=content_type)

    return behave


def breaking_off(body: bytes) -> Behaviour:
    """Return a behaviour that sends a part of a body, and closes the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(body)
        assert request.transport
        request.transport.close()
        return response

    return behave


def pausing(body: bytes) -> Behaviour:
    """Return a behaviour that sends a part of a body, and waits for the end of the test."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(body)
        await request[OVER].wait()
        return response

    return behave


@asynccontextmanager
async def client_of(receiver: Receiver, recorder: Any = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client, instrumented if there is a recorder."""
    async with httpx2.AsyncClient(base_url=receiver.url, verify=NO_TLS) as client:
        yield instrument(client, recorder) if recorder else client


async def in_thread(call: Callable[[httpx2.Client], Any], receiver: Receiver, recorder: Any) -> Any:
    """Call a function with an instrumented sync client, in a thread."""

    def work() -> Any:
        with httpx2.Client(base_url=receiver.url, verify=NO_TLS) as client:
            return call(instrument(client, recorder))

    return await asyncio.to_thread(work)


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_stream_is_the_same_and_is_copied(name: str) -> None:
    """Give the client all bytes, and copy them as a translator translates them."""
    sample = SAMPLES[name]
    body, path = body_of(sample), PATHS[sample.dialect]
    recorder = Recorder()
    async with receiving(streaming(body, content_type_of(sample.dialect))) as receiver:
        async with client_of(receiver, recorder) as client, client.stream("POST", path) as response:
            assert b"".join([piece async for piece in response.aiter_bytes()]) == body
        assert recorder.events == expected(body, path=path)
        assert recorder.only.ended == 1
        found = await in_thread(lambda client: client.post(path).content, receiver, recorder)
    assert found == body
    recorder.streams.pop(0)
    assert recorder.events == expected(body, path=path)


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies(encoding: str, *, is_streamed: bool) -> None:
    """Give the client the bytes as they were sent, and decode them for the copy."""
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    recorder = Recorder()
    async with receiving(streaming(compress(CHAT), encoding=encoding)) as receiver:

        def call(client: httpx2.Client) -> bytes:
            if not is_streamed:
                return client.post(CHAT_PATH).content
            with client.stream("POST", CHAT_PATH) as response:
                return b"".join(response.iter_bytes())

        assert await in_thread(call, receiver, recorder) == CHAT
    assert recorder.events == expected(CHAT)


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
async def test_an_answer_that_was_not_streamed(name: str) -> None:
    """Copy plain JSON."""
    dialect, answer = WHOLE_ANSWERS[name][:2]
    path = PATHS[dialect].replace("streamGenerate", "generate").replace("-stream", "")
    recorder = Recorder()
    async with receiving(whole(answer)) as receiver, client_of(receiver, recorder) as client:
        assert (await client.post(path)).json() == answer
    assert recorder.events == expected(json.dumps(answer).encode(), path=path)


@pytest.mark.parametrize("name", HTTP_ERRORS)
async def test_http_errors_are_copied_if_they_are_blocks(name: str) -> None:
    """Copy the 4xx of a policy. Leave out errors after which clients repeat the request."""
    dialect, status, answer, reason, reason_class = HTTP_ERRORS[name]
    recorder = Recorder()
    before = counters.errors_left_out
    async with receiving(whole(answer, status)) as receiver, client_of(receiver, recorder) as client:
        response = await client.post(PATHS[dialect])
        assert (response.status_code, response.json()) == (status, answer)
    if reason_class in {None, "error"}:
        assert (recorder.streams, counters.errors_left_out) == ([], before + 1)
    else:
        error = recorder.end["error"]
        assert (error["code"], error["reason_class"]) == (reason, reason_class)
        assert recorder.events == expected(json.dumps(answer).encode(), path=PATHS[dialect], status=status)


async def test_an_sdk_raises_the_error_of_a_block() -> None:
    """Let the SDK raise what it raises, and copy the block that it does not yield."""
    answer = HTTP_ERRORS["azure"][2]
    recorder = Recorder()
    async with receiving(whole(answer, 400)) as receiver:
        client = openai.AsyncOpenAI(base_url=receiver.url, api_key=CANARY, max_retries=0)
        async with instrument(client, recorder):
            with pytest.raises(openai.BadRequestError) as raised:
                await client.chat.completions.create(model="m", messages=[], stream=True)
    assert raised.value.body == answer["error"]
    assert recorder.end["error"]["code"] == "content_filter"


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", CHAT_PATH, "application/json", 200),
        ("POST", "/v1/embeddings", "application/json", 200),
        ("POST", "/v1/responses/resp_1", "application/json", 200),
        ("POST", "/v1/threads/t/messages", "application/json", 200),
        ("POST", CHAT_PATH, "text/html", 502),
        ("POST", CHAT_PATH, "application/octet-stream", 200),
        ("POST", CHAT_PATH, "application/json", 307),
        ("POST", "/chain/invoke", "application/json", 200),
        ("POST", "/bot/interactions", "application/json", 200),
        ("POST", "/to/text", "application/json", 200),
        ("POST", "/any/converse", "application/json", 200),
    ],
)
async def test_other_requests_are_not_copied(method: str, path: str, content_type: str, status: int) -> None:
    """Leave alone what is not an answer of a model."""
    recorder = Recorder()
    behave = whole(WHOLE_ANSWERS["chat"][1], status, content_type)
    async with receiving(behave) as receiver, client_of(receiver, recorder) as client:
        response = await client.request(method, path)
        assert response.status_code == status
    assert recorder.streams == []


async def test_claude_at_vertex() -> None:
    """Copy Anthropic's dialect at the paths of Vertex AI."""
    body = body_of(SAMPLES["anthropic refusal"])
    recorder = Recorder()
    path = "/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict"
    async with receiving(streaming(body)) as receiver, client_of(receiver, recorder) as client:
        await client.post(path)
    assert recorder.events == expected(body, dialect="anthropic.messages")


async def test_requests_do_not_enter_the_copy() -> None:
    """Keep headers, query and body of a request out, also if the answer repeats instructions and tools."""
    echoed = [dict(each) for each in SAMPLES["responses"].messages]
    for event in echoed:
        if "response" in event:
            repeated = {"instructions": CANARY, "metadata": {"key": CANARY}, "tools": [{"name": CANARY}]}
            event["response"] = {**event["response"], **repeated, "prompt": CANARY, "user": CANARY}
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in echoed)
    recorder = Recorder()
    async with (
        receiving(streaming(body)) as receiver,
        client_of(receiver, recorder) as client,
    ):
        headers = {"Authorization": f"Bearer {CANARY}", "traceparent": CANARY}
        response = await client.post(
            "/v1/responses", headers=headers, params={"key": CANARY}, json={"input": CANARY}
        )
        assert CANARY in response.text
    assert recorder.types[-1] == "response.completed"
    assert CANARY not in repr(vars(recorder.only))


async def test_a_client_that_leaves_cancels() -> None:
    """End the copy as cancelled if the client closes the answer before its end, with what it has seen."""
    recorder = Recorder()
    first = CHAT[: CHAT.index(b"I can't")]
    async with receiving(pausing(first)) as receiver, client_of(receiver, recorder) as client:
        async with client.stream("POST", CHAT_PATH) as response:
            async for _ in response.aiter_bytes():
                break

        def call(client: httpx2.Client) -> None:
            with client.stream("POST", CHAT_PATH) as response:
                next(response.iter_raw())

        await in_thread(call, receiver, recorder)
    for stream in recorder.streams:
        assert [event["type"] for event in stream.events] == [
            "response.created",
            "response.refusal.delta",
            "response.cancelled",
        ]
        assert stream.ended == 1
    assert len(recorder.streams) == 2


async def test_a_cancelled_task_cancels() -> None:
    """End the copy if the task that waits for bytes is cancelled."""
    recorder = Recorder()
    first = CHAT[: CHAT.index(b"I can't")]
    async with receiving(pausing(first)) as receiver, client_of(receiver, recorder) as client:

        async def read() -> None:
            async with client.stream("POST", CHAT_PATH) as response:
                async for _ in response.aiter_bytes():
                    seen.set()

        seen = asyncio.Event()
        task = asyncio.create_task(read())
        await seen.wait()
        await wait_until(lambda: recorder.streams, message="the copy began")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert recorder.end["status"] == "cancelled"


async def test_a_connection_that_breaks_interrupts() -> None:
    """Raise what the client raises, and end the copy as interrupted."""
    recorder = Recorder()
    first = CHAT[: CHAT.index(b"I can't")]
    async with receiving(breaking_off(first)) as receiver, client_of(receiver, recorder) as client:
        async with client.stream("POST", CHAT_PATH) as response:
            with pytest.raises(httpx2.RemoteProtocolError):
                await response.aread()
        assert recorder.end["error"]["code"] == "stream_interrupted"

        def call(client: httpx2.Client) -> None:
            with client.stream("POST", CHAT_PATH) as response, pytest.raises(httpx2.RemoteProtocolError):
                response.read()

        await in_thread(call, receiver, recorder)
    assert recorder.streams[1].events[-1]["response"]["error"]["code"] == "stream_interrupted"


async def test_instrumenting_twice_copies_once() -> None:
    """Replace publisher and context by a second call."""
    first, second = Recorder(), Recorder()
    async with receiving(streaming(CHAT)) as receiver, client_of(receiver, first) as client:
        instrument(client, second, tenant="acme")
        await client.post(CHAT_PATH)
        instrument_all(first)
        await client.post(CHAT_PATH)
    assert first.streams == []
    assert [stream.context["tenant"] for stream in second.streams] == ["acme", "acme"]


async def test_uninstrument_undoes_it() -> None:
    """Restore the client, also if nothing was instrumented."""
    recorder = Recorder()
    async with receiving(streaming(CHAT)) as receiver, client_of(receiver) as client:
        plain = dict(vars(client))
        uninstrument(client)
        instrument(client, recorder)
        uninstrument(client)
        assert vars(client) == plain
        await client.post(CHAT_PATH)
    assert recorder.streams == []


async def test_a_wrapper_of_another_library_stays() -> None:
    """Stop copying below another library's wrapper, and leave that in place."""
    recorder = Recorder()
    async with receiving(streaming(CHAT)) as receiver, client_of(receiver, recorder) as client:
        ours = client.send

        async def theirs(*args: Any, **options: Any) -> Any:
            return await ours(*args, **options)

        client.send = theirs  # type: ignore[method-assign]
        uninstrument(client)
        assert client.send is theirs
        await client.post(CHAT_PATH)
        assert recorder.streams == []
        instrument(client, recorder)
        await client.post(CHAT_PATH)
    assert recorder.events == expected(CHAT)


async def test_all_clients_of_the_process() -> None:
    """Copy the answers of any client, made before or after; restore the classes."""
    recorder = Recorder()
    sends = httpx2.Client.send, httpx2.AsyncClient.send
    async with receiving(streaming(CHAT)) as receiver, client_of(receiver) as client:
        instrument_all(recorder, tenant="acme")
        instrument_all(recorder, tenant="acme")
        await client.post(CHAT_PATH)
        assert recorder.events == expected(CHAT)
        uninstrument()
        await client.post(CHAT_PATH)
    assert (httpx2.Client.send, httpx2.AsyncClient.send) == sends
    assert len(recorder.streams) == 1
    assert recorder.only.context["tenant"] == "acme"


@pytest.mark.parametrize("method", ["stream", "offer", "end"])
async def test_no_fault_of_the_copy_reaches_the_client(method: str) -> None:
    """Count the fault, and give the client its answer."""
    before = sum(counters.faults.values())
    async with receiving(streaming(CHAT)) as receiver, client_of(receiver, Faulty(method)) as client:
        assert (await client.post(CHAT_PATH)).content == CHAT
        async with client.stream("POST", CHAT_PATH) as response:
            assert await response.aread() == CHAT
    assert sum(counters.faults.values()) == before + 2


async def test_a_response_that_cannot_be_copied() -> None:
    """Count a response that is none of httpx, and return it."""

    class Odd(httpx2.AsyncClient):
        async def send(self, *_: Any, **__: Any) -> Any:
            return "odd"

    before = sum(counters.faults.values())
    async with Odd() as client:
        found: Any = await instrument(client, Recorder()).post("http://127.0.0.1/v1/responses")
    assert found == "odd"
    assert sum(counters.faults.values()) == before + 1


async def test_an_answer_that_a_transport_gives_whole() -> None:
    """Copy the answers of caches and mocks, which have no stream."""
    recorder = Recorder()
    answer = WHOLE_ANSWERS["chat"][1]
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
    with httpx2.Client(transport=transport) as client:
        instrument(client, recorder)
        assert client.post("http://model/v1/chat/completions").json() == answer
    assert recorder.events == expected(json.dumps(answer).encode(), path=CHAT_PATH)


def test_the_clients_of_sdks() -> None:
    """Find the HTTP clients where SDKs keep them; refuse an object that has none."""
    recorder = Recorder()
    sync_client, async_client = httpx2.Client(), httpx2.AsyncClient()
    for sdk in (
        SimpleNamespace(_api_client=SimpleNamespace(_httpx_client=sync_client)),
        SimpleNamespace(sdk_configuration=SimpleNamespace(client=sync_client, async_client=async_client)),
        openai.OpenAI(api_key="k", http_client=sync_client),
    ):
        assert instrument(sdk, recorder) is sdk
        assert "send" in vars(sync_client)
        uninstrument(sdk)
        assert "send" not in vars(sync_client)
    with pytest.raises(TypeError, match="'object' has no httpx client"):
        instrument(object(), recorder)
    with pytest.raises(TypeError, match="context 'user' is unknown"):
        instrument(sync_client, recorder, user="x")  # type: ignore[call-arg]
    sync_client.close()


def test_requests_that_are_not_copied_are_warned_of() -> None:
    """Warn if google-genai has a client that cannot be instrumented."""
    with httpx2.Client() as client:
        sdk = SimpleNamespace(_api_client=SimpleNamespace(_httpx_client=client, _use_aiohttp=lambda: True))
        with pytest.warns(RuntimeWarning, match="aiohttp"):
            instrument(sdk, Recorder())
