"""Ask SDKs for messages, and print the texts that they make of the answers.

A program for the virtual environment of the SDKs: `python messages.py` reads the name of an SDK, a URL and
the names of models as JSON from stdin, and writes one line for each model.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Pieces = dict[str, list[str]]
"""Pieces of text by their kind."""

PROMPT: Any = [{"role": "user", "content": "Hello"}]


def openai(url: str) -> Callable[[str, Pieces], None]:
    """Read the snapshot of Chat Completions that OpenAI's SDK accumulates."""
    from openai import ContentFilterFinishReasonError, LengthFinishReasonError, OpenAI
    from openai.lib.streaming.chat import ChatCompletionStreamState

    client = OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)

    def ask(model: str, pieces: Pieces) -> None:
        state = ChatCompletionStreamState()
        try:
            for chunk in client.chat.completions.create(model=model, messages=PROMPT, stream=True):
                state.handle_chunk(chunk)
        except (ContentFilterFinishReasonError, LengthFinishReasonError):
            pass  # the snapshot is complete
        finally:
            snapshot = state.current_completion_snapshot
            for choice in snapshot.choices:
                more = choice.message.model_extra or {}
                pieces["reasoning"].append(more.get("reasoning_content") or more.get("reasoning") or "")
                pieces["refusal"].append(choice.message.refusal or "")
                pieces["output_text"].append(choice.message.content or "")

    return ask


def anthropic(url: str) -> Callable[[str, Pieces], None]:
    """Read the message that Anthropic's SDK accumulates."""
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="key", max_retries=0)

    def ask(model: str, pieces: Pieces) -> None:
        with client.messages.stream(model=model, messages=PROMPT, max_tokens=9) as stream:
            stream.until_done()
            for block in stream.get_final_message().content:
                if block.type == "thinking":
                    pieces["reasoning"].append(block.thinking)
                elif block.type == "text":
                    pieces["output_text"].append(block.text)

    return ask


def google(url: str) -> Callable[[str, Pieces], None]:
    """Read the parts of the chunks that Google's SDK yields; it accumulates none."""
    from google import genai
    from google.genai import types

    client = genai.Client(api_key="key", http_options=types.HttpOptions(base_url=url))

    def ask(model: str, pieces: Pieces) -> None:
        for chunk in client.models.generate_content_stream(model=model, contents="Hello"):
            for candidate in chunk.candidates or []:
                for part in (candidate.content and candidate.content.parts) or []:
                    pieces["reasoning" if part.thought else "output_text"].append(part.text or "")

    return ask


def mistralai(url: str) -> Callable[[str, Pieces], None]:
    """Read the deltas that Mistral's SDK yields; it accumulates none."""
    from mistralai.client import Mistral

    client = Mistral(api_key="key", server_url=url)

    def ask(model: str, pieces: Pieces) -> None:
        choices: dict[tuple[int, str], list[str]] = defaultdict(list)
        for event in client.chat.stream(model=model, messages=PROMPT):
            for choice in event.data.choices:
                for kind, text in _mistral_texts(choice.delta.content):
                    choices[choice.index, kind].append(text)
        for place in sorted(choices):
            pieces[place[1]] += choices[place]

    return ask


def _mistral_texts(content: Any) -> Iterator[tuple[str, str]]:
    for item in [content] if isinstance(content, str) else content or []:
        if isinstance(item, str):
            yield "output_text", item
        elif item.type == "thinking":
            yield from (("reasoning", each.text) for each in item.thinking if each.type == "text")
        elif item.type == "text":
            yield "output_text", item.text


def cohere(url: str) -> Callable[[str, Pieces], None]:
    """Read the deltas that Cohere's SDK yields; it accumulates none."""
    from cohere import ClientV2

    client = ClientV2(api_key="key", base_url=url)

    def ask(model: str, pieces: Pieces) -> None:
        for event in client.chat_stream(model=model, messages=PROMPT):
            if event.type in {"content-start", "content-delta"}:
                content = event.delta.message.content
                pieces["reasoning"].append(content.thinking or "")
                pieces["output_text"].append(content.text or "")
            elif event.type == "tool-plan-delta":
                pieces["reasoning"].append(event.delta.message.tool_plan or "")

    return ask


SDKS = {each.__name__: each for each in (openai, anthropic, google, mistralai, cohere)}


def main() -> None:
    """Ask for each message."""
    task = json.load(sys.stdin)
    ask = SDKS[task["sdk"]](task["url"])
    for model in task["models"]:
        pieces: Pieces = defaultdict(list)
        texts: dict[str, str] = {}
        error = None
        try:
            ask(model, pieces)
            texts = {kind: text for kind, each in pieces.items() if (text := "".join(each))}
        except Exception as raised:  # noqa: BLE001 - what an SDK raises is a result
            error = f"{type(raised).__name__}: {raised}"
        print(json.dumps({"texts": texts, "error": error}), flush=True)  # noqa: T201 - output of a program


if __name__ == "__main__":
    main()
