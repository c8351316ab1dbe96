"""Translate Chat Completions, with the variants of the servers that speak it.

- A refusal comes in `delta.refusal` and ends with `stop`.
- Reasoning comes in `reasoning_content` (DeepSeek, xAI, Z.ai, …), `reasoning` (OpenRouter, vLLM, Groq, …),
  `reasoning_details` (OpenRouter), `reasoning_text` (Copilot), a list in `content` (Mistral), or between
  `<think>` and `</think>` at the beginning of the content, unless a field had reasoning before. Some servers
  send the same text in two of these, in each delta or the whole text at the end: it counts once.
- gpt-oss on Bedrock writes each fragment of its reasoning between `<reasoning>` and `</reasoning>`.
- MiniMax repeats the whole message in a last chunk, which has a `message` instead of a `delta`. Its reasoning
  may come as snapshots: each fragment has all of the text so far.
- A choice ends with its `finish_reason`. Some servers send text after it, and others send it twice, so the
  parts are closed when the stream ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltaloom import limits
from deltaloom.dialects.azure_filters import block_of, filtered_categories
from deltaloom.dialects.ends import NATURAL, ending_of, graver, gravest, gravity, is_blocking
from deltaloom.dialects.errors_in_bodies import error_ending, status_error
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.thinking_tags import ThinkingTags
from deltaloom.dialects.writing import (
    BLOCKING,
    COMPLETED,
    DELTA_CHARACTERS,
    Kind,
    ProviderEnding,
    add_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.dialects.writing import ResponseWriter

_PROMPT_FILTERS = frozenset({"prompt_filter_results", "prompt_annotations"})
"""Fields of Azure with the filters' findings about the prompt; the second one is that of older versions."""

_ERRORS = frozenset({"error", "x_groq", "base_resp"})
"""Fields that may have an error: those of most servers, Groq and MiniMax."""

CHOICES_LIMIT = 128
"""Maximum choices of a response, as OpenAI documents for `n`."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_text")
"""Fields with reasoning. If a delta has several, their texts are equal."""

_WORDS = ("content", "refusal", "text", "reasoning_details", *_REASONING)


class _Choice:
    """An answer of several that a request asked for."""

    def __init__(self, number: int, tag: str) -> None:
        self.number = number
        self.identity = ""
        """The id of the last chunk with this choice."""
        self.tags = ThinkingTags(tag)
        self.carrier = ""
        """The field that carried the last fragment of reasoning."""
        self.fragment = ""
        """The last fragment of reasoning; empty if it is long."""
        self.is_redacted = False
        self.has_deltas = False
        self.has_content = False
        """True if a `content` had text."""
        self.has_snapshots: bool | None = None
        """True if each fragment of reasoning has all of the text so far; None until the second one."""
        self.snapshot = (0, 0)
        """Length and hash of the last fragment that had all of the text."""
        self.finish = ""
        self.native_finish = ""
        self.filtered: set[str] = set()
        """Categories for which a content filter stopped this choice."""
        self.error: ProviderEnding | None = None


class Chat:
    """Reads the messages of a Chat Completions stream, or one whole answer."""

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._choices: dict[int, _Choice] = {}
        self._id = ""
        self._error: ProviderEnding | None = None
        self._earlier: ProviderEnding = COMPLETED
        """The gravest end of the choices of earlier responses in the same stream."""
        self._is_done = False

    def read(self, message: WireMessage) -> None:
        """Read one chunk."""
        if message.value is DONE:
            self._is_done = True
            self.finish()
            return
        chunk = object_at(message.value)
        if not chunk:
            self._writer.leave_out("message that is no object")
            return
        if _ERRORS & chunk.keys() or message.event == "error" or chunk.get("object") == "error":
            self._read_error(message.event, chunk)
        if not ({"choices", "id", "model"} & chunk.keys()):
            if self._error is None:
                self._writer.leave_out("chunk without choices")
            return
        self._begin(chunk)
        for field in _PROMPT_FILTERS & chunk.keys():
            for each in objects_at(chunk, field):
                self._note_filters(0, filtered_categories(each))
        if "content_filters" in chunk:
            self._note_filters(0, block_of(chunk).categories)
        for each in objects_at(chunk, "choices"):
            self._read_choice(each)

    def _read_error(self, event: str, chunk: Object) -> None:
        """Note the error of a chunk, in any of the places where servers put it."""
        error = chunk.get("error") or object_at(chunk, "x_groq").get("error")
        if error:
            error = error if isinstance(error, dict) else {"message": error}
            self._error = error_ending(error, self._provider)
        elif event == "error" or chunk.get("object") == "error":  # the latter is vLLM's
            self._error = error_ending(chunk, self._provider)
        elif error := status_error(chunk):
            self._error = error_ending(error, "minimax")

    def finish(self) -> None:
        """Write the end of the response."""
        writer = self._writer
        if writer.is_over:
            return
        choices = list(self._choices.values())
        for choice in choices:
            self._write_rest(choice)
            if choice.finish or choice.filtered or (self._is_done and not self._error):
                writer.close(choice.number)
        writer.end(self._ending(choices))

    def _begin(self, chunk: Object) -> None:
        identity = text_at(chunk, "id")
        self._id = identity or self._id
        self._writer.begin(text_at(chunk, "model"), identity)

    def _note_filters(self, number: int, categories: set[str]) -> None:
        if categories:
            add_names(self._choice(number).filtered, categories)

    def _choice(self, number: int) -> _Choice:
        if number not in self._choices:
            tag = "reasoning" if "openai.gpt-oss" in self._writer.model else "think"
            self._choices[number] = _Choice(number, tag)
        return self._choices[number]

    def _read_choice(self, data: Object) -> None:
        number = index_at(data, "index")
        if number not in self._choices and len(self._choices) >= CHOICES_LIMIT:
            self._writer.leave_out(f"choice beyond the limit of {CHOICES_LIMIT}")
            return
        choice = self._choice(number)
        if choice.finish and choice.identity != self._id and _has_words(data):
            choice = self._begin_again(choice)
        choice.identity = self._id
        if "content_filter_results" in data or "content_filter_result" in data:
            add_names(choice.filtered, filtered_categories(data))
        if error := object_at(data, "error"):
            choice.error = error_ending(error, self._provider)
        if isinstance(data.get("delta"), dict):
            choice.has_deltas = True
            self._read_delta(choice, data["delta"])
        elif message := object_at(data, "message"):
            self._read_message(choice, message)
        elif text := text_at(data, "text"):  # the older completions
            self._writer.delta(number, "output_text", text)
        finish = text_at(data, "finish_reason")[: limits.REASON]
        if "finish_reason" not in data and "text" in data:  # DeepSeek on Bedrock
            finish = text_at(data, "stop_reason")[: limits.REASON]
        choice.finish = graver(finish, choice.finish, provider=self._provider, field="finish_reason")
        native = text_at(data, "native_finish_reason")[: limits.REASON]
        choice.native_finish = graver(native, choice.native_finish, provider="", field="")

    def _begin_again(self, ended: _Choice) -> _Choice:
        """Close a choice that has ended, and return one for the next response in the same stream."""
        self._write_rest(ended)
        self._writer.close(ended.number)
        self._earlier = gravest(self._choice_ending(ended) or COMPLETED, self._earlier)
        self._choices[ended.number] = choice = _Choice(ended.number, ended.tags.tag)
        return choice

    def _read_message(self, choice: _Choice, message: Object) -> None:
        """Read a whole message. After deltas, it adds only kinds of text that they did not have."""
        repeated: tuple[str, ...] = ()
        if choice.has_deltas:
            has_text = self._writer.has_text
            if choice.has_content:
                repeated += ("content",)
            if has_text(choice.number, "refusal"):
                repeated += ("refusal",)
            if has_text(choice.number, "reasoning", "reasoning_summary"):
                repeated += ("reasoning_details", *_REASONING)
        self._read_delta(choice, {name: each for name, each in message.items() if name not in repeated})

    def _read_delta(self, choice: _Choice, delta: Object) -> None:
        """Read the texts of a delta. The reasoning precedes the answer that it led to."""
        writer, number = self._writer, choice.number
        self._read_reasoning(choice, delta)
        writer.delta(number, "refusal", text_at(delta, "refusal"))
        content = delta.get("content")
        if isinstance(content, str):
            self._add_content(choice, content)
            return
        for item in objects_at(delta, "content"):
            item_type = text_at(item, "type")
            if item_type == "thinking":
                thinking = item.get("thinking")
                pieces = [thinking] if isinstance(thinking, str) else map(_text, objects_at(item, "thinking"))
                self._add_reasoning(choice, "content", "reasoning", "".join(pieces))
            elif item_type == "refusal":
                writer.delta(number, "refusal", text_at(item, "refusal"))
            elif item_type in {"text", "output_text", ""}:
                self._add_content(choice, text_at(item, "text"))

    def _add_content(self, choice: _Choice, content: str) -> None:
        choice.has_content |= bool(content)
        for kind, text in choice.tags.divide(content):
            self._writer.delta(choice.number, kind, text)

    def _read_reasoning(self, choice: _Choice, delta: Object) -> None:
        if "reasoning_details" in delta and self._read_details(choice, delta):
            return
        choice.is_redacted |= bool(text_at(delta, "reasoning_opaque"))
        for field in _REASONING:
            if text := text_at(delta, field):
                self._add_reasoning(choice, field, "reasoning", text)
                return

    def _read_details(self, choice: _Choice, delta: Object) -> bool:
        """Read OpenRouter's details of the reasoning; return True if they have a text."""
        found = list(_details(delta))
        choice.is_redacted |= any(kind is None for kind, _ in found)
        texts = [(kind, text) for kind, text in found if kind is not None and text]
        for kind, text in texts:
            self._add_reasoning(choice, "reasoning_details", kind, text)
        return bool(texts)

    def _add_reasoning(self, choice: _Choice, carrier: str, kind: Kind, text: str) -> None:
        """Add a fragment, unless another field carried the same one just before, or the same text so far."""
        if text and carrier == choice.carrier == "reasoning_details" and choice.has_snapshots is not False:
            text = self._new_text(choice, text)
        if not text:
            return
        repeats = carrier != choice.carrier and (
            text == choice.fragment or self._writer.has_whole_text(choice.number, text)
        )
        choice.carrier = carrier
        choice.fragment = "" if repeats or len(text) > DELTA_CHARACTERS else text
        choice.tags.stop()
        if not repeats:
            self._writer.delta(choice.number, kind, text)

    def _new_text(self, choice: _Choice, text: str) -> str:
        """Return the new text of a fragment of reasoning. A snapshot repeats all text before it."""
        if choice.has_snapshots is None:
            before = choice.fragment
            is_longer = before and len(text) > len(before) and text.startswith(before)
            choice.has_snapshots = bool(is_longer) and "minimax" in self._writer.model.casefold()
            choice.snapshot = (len(before), hash(before))
        length, checksum = choice.snapshot
        if not choice.has_snapshots or hash(text[:length]) != checksum:
            return text
        choice.snapshot = (len(text), hash(text))
        return text[length:]

    def _write_rest(self, choice: _Choice) -> None:
        """Write what is held until the end of a choice. It is also written if the stream broke off."""
        for kind, text in choice.tags.rest():
            self._writer.delta(choice.number, kind, text)
        if choice.is_redacted and not self._writer.has_text(choice.number, "reasoning"):
            self._writer.redacted()
            choice.is_redacted = False

    def _ending(self, choices: list[_Choice]) -> ProviderEnding:
        """Return the end of the response: the gravest end of its choices."""
        endings = [self._choice_ending(choice) for choice in choices]
        missing = self._error or (COMPLETED if self._is_done and choices else self._writer.interruption)
        found = max([each or missing for each in endings], key=gravity, default=missing)
        return gravest(self._error or found, found, self._earlier)

    def _choice_ending(self, choice: _Choice) -> ProviderEnding | None:
        """Return the end of a choice; None if it has none."""
        native, finish = choice.native_finish, choice.finish
        category = ", ".join(sorted(choice.filtered))
        if choice.error is not None:
            ending = choice.error
            if is_blocking(native, provider="", field=""):
                return ending_of(native, provider="", field="", explanation=ending.message)
            if native and native.casefold() not in NATURAL:
                ending = ending._replace(reason=native)
            if ending.reason_class in BLOCKING or not is_blocking(
                finish, provider=self._provider, field="finish_reason"
            ):
                return ending
        if native and native.casefold() != finish.casefold():
            ending = ending_of(native, provider="", field="")
            if ending.reason_class in {"error", "length"} or is_blocking(native, provider="", field=""):
                return ending._replace(category=category)
        if choice.filtered and not is_blocking(finish, provider=self._provider, field="finish_reason"):
            finish = "content_filter"
        if not finish:
            return None
        return ending_of(finish, provider=self._provider, field="finish_reason", category=category)


def _has_words(choice: Object) -> bool:
    words = object_at(choice, "delta") or object_at(choice, "message") or choice
    return any(words.get(field) for field in _WORDS)


def _text(item: Object) -> str:
    return text_at(item, "text")


def _details(delta: Object) -> Iterator[tuple[Kind | None, str]]:
    """Yield kind and text of OpenRouter's reasoning details; the kind is None if the text is encrypted."""
    for detail in objects_at(delta, "reasoning_details"):
        match text_at(detail, "type"):
            case "reasoning.text":
                yield "reasoning", text_at(detail, "text")
            case "reasoning.summary":
                yield "reasoning_summary", text_at(detail, "summary")
            case "reasoning.encrypted":
                yield None, ""


def is_chat(value: Any) -> bool:
    """Return True if a message looks like a chunk or an answer of Chat Completions."""
    chunk = object_at(value)
    return (
        isinstance(chunk.get("choices"), list)
        or text_at(chunk, "object").startswith("chat.completion")
        or "status_code" in object_at(chunk, "base_resp")
    )
