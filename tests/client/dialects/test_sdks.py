"""Test the translators against the messages that the providers' own SDKs accumulate, of the same bytes."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deltaloom.dialects import Translator
from tests.client.dialects.reading import reading_of
from tests.client.dialects.streams import SAMPLES, body_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.prove, pytest.mark.filterwarnings("ignore")]


class Message(NamedTuple):
    """The texts of a message, each kind joined, and its end."""

    refusal: str
    reasoning: str
    answer: str
    end: str
    """Reason of the end as the provider gives it; `failed` for an error."""


class Player(BaseHTTPRequestHandler):
    """Answers every request with the body of the sample that the path begins with."""

    def do_POST(self) -> None:
        """Send the body."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = body_of(SAMPLES[self.path.split("/")[1].replace("_", " ")])
        is_lines = body.startswith(b"{")
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson" if is_lines else "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Play the samples on loopback, and return the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Player) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def chat(url: str) -> Message:
    """Return what OpenAI's SDK makes of Chat Completions."""
    openai = pytest.importorskip("openai")
    streaming = pytest.importorskip("openai.lib.streaming.chat")
    state = streaming.ChatCompletionStreamState()
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    with client.chat.completions.create(model="m", messages=[], stream=True) as stream:
        try:
            for each in stream:
                state.handle_chunk(each)
        except openai.APIError:
            failed = True
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            failed = False
        else:
            failed = False
    choices = state.current_completion_snapshot.choices
    extra = [choice.message.model_extra or {} for choice in choices]
    return Message(
        "".join(choice.message.refusal or "" for choice in choices),
        "".join(each.get("reasoning_content") or each.get("reasoning") or "" for each in extra),
        "".join(choice.message.content or "" for choice in choices),
        "failed" if failed else str(choices[-1].finish_reason),
    )


def responses(url: str) -> Message:
    """Return what OpenAI's SDK reads of the Responses API."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    texts = {"refusal": "", "reasoning_text": "", "output_text": ""}
    end = ""
    with client.responses.create(model="m", input="x", stream=True) as stream:
        try:
            for each in stream:
                kind = each.type.removeprefix("response.").removesuffix(".delta")
                if kind in texts:
                    texts[kind] += each.delta
                end = each.type.removeprefix("response.")
        except openai.APIError:
            end = "failed"
    return Message(texts["refusal"], texts["reasoning_text"], texts["output_text"], end)


def anthropic(url: str) -> Message:
    """Return what Anthropic's SDK makes of a message."""
    sdk = pytest.importorskip("anthropic")
    client = sdk.Anthropic(base_url=url, api_key="x", max_retries=0)
    try:
        with client.messages.stream(model="m", max_tokens=1, messages=[]) as stream:
            stream.until_done()
            end = str(stream.get_final_message().stop_reason)
            found = stream.get_final_message().content
    except sdk.APIError:
        return Message("", "", "", "failed")
    return Message(
        "",
        "".join(each.thinking for each in found if each.type == "thinking"),
        "".join(each.text for each in found if each.type == "text"),
        end,
    )


def ollama(url: str) -> Message:
    """Return what Ollama's SDK reads of a chat."""
    sdk = pytest.importorskip("ollama")
    reasoning = answer = end = ""
    for each in sdk.Client(host=url).chat(model="m", messages=[], stream=True):
        reasoning += each.message.thinking or ""
        answer += each.message.content or ""
        end = each.done_reason or end
    return Message("", reasoning, answer, end)


SDKS: dict[str, Callable[[str], Message]] = {
    "openai.chat": chat,
    "openai.responses": responses,
    "anthropic.messages": anthropic,
    "ollama.chat": ollama,
}

DIFFERENT = {
    "chat summary and encrypted reasoning": "the SDK fails at lists without indexes",
    "chat content as a list": "the SDK fails at lists without indexes",
    "chat thinking tags": "tags are text to the SDK",
    "chat reasoning tags of gpt-oss": "tags are text to the SDK",
    "chat refusal in a list": "the SDK fails at lists without indexes",
    "chat older completions": "another method of the SDK reads them",
    "chat prompt filter": "the SDK does not know Azure's filters",
    "chat filter of the older versions": "the SDK does not know Azure's filters",
    "chat filter": "the SDK fails at chunks without a delta",
    "responses withheld": "the SDK does not know the older end `response.done`",
    "responses filtered by Azure": "the SDK does not know Azure's filters",
    "responses error": "the SDK gives the event `error` to its caller",
    "ollama error": "it is an answer of /api/generate",
}
"""Samples of which the SDK makes something else, and why."""

NATURAL = {"None", "stop", "tool_calls", "end_turn", "completed", "load"}
SEVERAL_ENDS = {
    "chat blocked choice with an error",
    "chat end after a filter",
    "chat native error",
    "chat native length",
    "chat native reason",
}
"""Samples with several ends, of which the SDK takes the last one or the less specific one."""


@pytest.mark.parametrize(
    "name", [name for name, each in SAMPLES.items() if each.dialect in SDKS and name not in DIFFERENT]
)
def test_the_sdk_makes_the_same_message(name: str, address: str) -> None:
    """Give the texts and the end that the provider's SDK gives."""
    sample = SAMPLES[name]
    found = SDKS[sample.dialect](f"{address}/{name.replace(' ', '_')}")
    translator = Translator(sample.dialect)
    reading = reading_of(translator.feed(body_of(sample)) + translator.end())
    kinds = ("refusal", "reasoning", "output_text")
    texts = tuple("".join(text for kind, text in reading.texts if kind == each) for each in kinds)
    if found.end == "failed":
        assert reading.status == "failed"
    if found.end != "failed" or sample.dialect == "openai.chat":
        assert found[:3] == texts
    if found.end in NATURAL and name not in SEVERAL_ENDS:
        assert reading.status in {"completed", "failed"}
    elif found.end != "failed" and name not in SEVERAL_ENDS:
        assert reading.details["reason"] == found.end
