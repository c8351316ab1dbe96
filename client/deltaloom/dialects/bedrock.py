"""Translate Bedrock: ConverseStream and whole Converse answers, and InvokeModel with the model's own dialect.

A guardrail that intervenes may have blocked the answer or only masked words of it. The trace in the last
event says which; masking is no block.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from deltaloom import limits
from deltaloom.dialects.ends import ending_of, gravest
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage, parse
from deltaloom.dialects.json_values import Object, index_at, object_at, objects_at, text_at
from deltaloom.dialects.writing import COMPLETED, PARTS_LIMIT, ProviderEnding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deltaloom.dialects.writing import ResponseWriter

_EVENTS = (
    "messageStart",
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
    "metadata",
)
_ACTIONS_AT_MOST = 10_000
_DEPTH = 12


class Bedrock:
    """Reads the events of ConverseStream, or one whole answer of Converse."""

    PROVIDER = "aws.bedrock"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._stop = ""
        self._trace: Object = {}
        """The last trace of a guardrail."""
        self._action = ""
        self._withheld: set[int] = set()
        """Blocks of reasoning that have a signature."""
        self._redacted: set[int] = set()
        """Blocks of reasoning that were reported as withheld."""

    def read(self, message: WireMessage) -> None:
        """Read one event: a frame, or an object whose key is the event's name."""
        if message.value is DONE:
            return
        value = object_at(message.value)
        if message.event.startswith("!"):
            self._fail(message.event[1:], value)
            return
        self._action = text_at(value, "amazon-bedrock-guardrailAction") or self._action
        self._read_trace(object_at(value, "amazon-bedrock-trace", "guardrail"))
        if message.event in _EVENTS:
            self._read_event(message.event, value)
            return
        for name in _EVENTS:
            if isinstance(value.get(name), dict):
                self._read_event(name, value[name])
                return
        for name in value:
            if name.endswith("Exception"):
                self._fail(name, object_at(value, name))
                return
        if object_at(value, "output", "message"):
            self._read_answer(value)
        elif error := object_at(value, "error"):
            self._writer.end(gravest(error_ending(error, self._provider), self._ending()))
        else:
            self._writer.leave_out(f"event {(message.event or 'without a known name')[:80]!r}")

    def finish(self) -> None:
        """Write the end of the response."""
        self._writer.end(self._ending())

    def _fail(self, name: str, value: Object) -> None:
        self._writer.end(gravest(error_ending({"code": name, **value}, self._provider), self._ending()))

    def _read_event(self, name: str, event: Object) -> None:
        writer = self._writer
        index = index_at(event, "contentBlockIndex")
        match name:
            case "messageStart":
                writer.begin()
            case "contentBlockDelta":
                self._read_delta(index, object_at(event, "delta"))
            case "contentBlockStop":
                self._stop_block(index)
            case "messageStop":
                self._stop = text_at(event, "stopReason")[: limits.REASON] or self._stop
            case "metadata":
                self._read_trace(object_at(event, "trace", "guardrail"))
            case _:
                pass

    def _read_delta(self, index: int, delta: Object) -> None:
        reasoning = object_at(delta, "reasoningContent")
        self._writer.delta(index, "reasoning", text_at(reasoning, "text"))
        self._note_withheld(index, reasoning)
        self._writer.delta(index, "output_text", text_at(delta, "text"))

    def _note_withheld(self, index: int, reasoning: Object) -> None:
        """Report redacted reasoning, once a block; note the signature of other reasoning."""
        if text_at(reasoning, "redactedContent") and index not in self._redacted:
            if len(self._redacted) < PARTS_LIMIT:
                self._redacted.add(index)
            self._writer.redacted()
        elif text_at(reasoning, "signature") and len(self._withheld) < PARTS_LIMIT:
            self._withheld.add(index)

    def _stop_block(self, index: int) -> None:
        """Close a block. Reasoning with a signature but without a text was withheld."""
        is_reported = index in self._redacted
        if index in self._withheld and not is_reported and not self._writer.has_text(index, "reasoning"):
            self._writer.redacted()
        self._withheld.discard(index)
        self._redacted.discard(index)
        self._writer.close(index)

    def _read_answer(self, answer: Object) -> None:
        writer = self._writer
        writer.begin()
        for index, block in enumerate(objects_at(answer, "output", "message", "content")):
            reasoning = object_at(block, "reasoningContent")
            words = object_at(reasoning, "reasoningText")
            writer.whole(index, "reasoning", text_at(words, "text"))
            self._note_withheld(index, reasoning if text_at(words, "text") else {**words, **reasoning})
            cited = "".join(
                text_at(each, "text") for each in objects_at(block, "citationsContent", "content")
            )
            writer.whole(index, "output_text", text_at(block, "text") or cited)
            self._stop_block(index)
        self._stop = text_at(answer, "stopReason")
        self._read_trace(object_at(answer, "trace", "guardrail"))
        self.finish()

    def _read_trace(self, guardrail: Object) -> None:
        self._trace = guardrail or self._trace

    def _ending(self) -> ProviderEnding:
        blocked = sorted(set(blocked_by(self._trace)))
        only_masked = not blocked and _has_masked(self._trace)
        by_action = self._action == "INTERVENED" and self._stop != "guardrail_intervened"
        if not self._stop and (only_masked or not by_action):  # a block counts even if the stream broke
            return self._writer.interruption
        if only_masked and (by_action or self._stop == "guardrail_intervened"):
            return COMPLETED
        return ending_of(
            self._action if by_action else self._stop,
            provider=self.PROVIDER,
            field="amazon-bedrock-guardrailAction" if by_action else "stopReason",
            category=", ".join(blocked),
            explanation=text_at(self._trace, "actionReason") if blocked else "",
        )


def _findings(trace: Object) -> Iterator[tuple[str, str]]:
    """Yield policy and action of each finding in a guardrail's trace, of a limited number."""
    pending: list[tuple[str, Any, int]] = [("", trace, 0)]
    seen = 0
    while pending and seen < _ACTIONS_AT_MOST:
        policy, value, depth = pending.pop()
        seen += 1
        if isinstance(value, dict) and depth < _DEPTH:
            action = value.get("action")
            if isinstance(action, str):
                yield policy, action
            pending += [
                (name[:64] if name.endswith("Policy") else policy, each, depth + 1)
                for name, each in value.items()
                if isinstance(each, dict | list)
            ]
        elif isinstance(value, list) and depth < _DEPTH:
            pending += [(policy, each, depth + 1) for each in value[:_ACTIONS_AT_MOST]]


def blocked_by(trace: Object) -> Iterator[str]:
    """Yield the policies that blocked, by a guardrail's trace."""
    return (policy or "guardrail" for policy, action in _findings(trace) if action == "BLOCKED")


def _has_masked(trace: Object) -> bool:
    return any(action == "ANONYMIZED" for _, action in _findings(trace))


_LISTS = ("results", "outputs", "generations")
"""Lists in the answers of Titan, Mistral and Cohere."""

_TEXTS = ("outputText", "generation", "completion", "output", "text")
"""Fields with the text of Titan, Llama, older Claude, and Mistral and Cohere."""

_STOPS = ("completionReason", "stop_reason", "stopReason", "finish_reason")


class InvokeModel:
    """Reads the frames of InvokeModelWithResponseStream: each has a message of the model's own dialect.

    Args:
        writer: the writer of the response.
        provider: name of the provider in `deltaloom.reasons`.
        inner_of: function that returns the reader for the first message of the model, or None.
    """

    PROVIDER = "aws.bedrock"

    def __init__(self, writer: ResponseWriter, provider: str, inner_of: Callable[[Any], Any]) -> None:
        self._writer = writer
        self._provider = provider
        self._inner_of = inner_of
        self._inner: Any = None
        self._stop = ""
        self._has_text = False

    def read(self, message: WireMessage) -> None:
        """Read one frame, or an object with `bytes`, or the model's own message."""
        value = object_at(message.value)
        if message.event.startswith("!"):
            error = error_ending({"code": message.event[1:], **value}, self._provider)
            self._writer.end(gravest(error, self._own_ending()))
            return
        data = text_at(value, "bytes") or text_at(value, "chunk", "bytes")
        if not data:
            self._read_own(message)
            return
        try:
            decoded = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            self._writer.lose("chunk that is not Base64")
            return
        for inner in parse(decoded, self._writer):
            self._read_own(inner)

    def finish(self) -> None:
        """Write the end of the response."""
        if self._inner is not None:
            self._inner.finish()
        elif self._stop:
            if self._has_text:
                self._writer.close("text")
            self._writer.end(self._own_ending())
        else:
            self._writer.end(self._writer.interruption)

    def _own_ending(self) -> ProviderEnding:
        return ending_of(self._stop, provider=self.PROVIDER, field="stopReason")

    def _note_intervention(self, trace: Object) -> None:
        """Let the response end as blocked, unless the guardrail's trace says that it only masked words."""
        blocked = sorted(set(blocked_by(trace)))
        masked = not blocked and _has_masked(trace)
        self._writer.block = (
            None
            if masked
            else ending_of(
                "INTERVENED",
                provider=self.PROVIDER,
                field="amazon-bedrock-guardrailAction",
                category=", ".join(blocked),
            )
        )

    def _read_own(self, message: WireMessage) -> None:
        value = object_at(message.value)
        if text_at(value, "amazon-bedrock-guardrailAction") == "INTERVENED":
            self._note_intervention(object_at(value, "amazon-bedrock-trace", "guardrail"))
        if self._inner is None:
            self._inner = self._inner_of(message.value)
        if self._inner is not None:
            self._inner.read(message)
            return
        for part in (value, *(each for field in _LISTS for each in objects_at(value, field))):
            for field in _TEXTS:
                if text := text_at(part, field):
                    self._has_text = True
                    self._writer.delta("text", "output_text", text)
            for field in _STOPS:
                self._stop = text_at(part, field)[: limits.REASON] or self._stop


def is_bedrock(value: Any) -> bool:
    """Return True if a message looks like an event or an answer of Converse."""
    event = object_at(value)
    return any(isinstance(event.get(name), dict) for name in _EVENTS[:-1]) or bool(
        object_at(event, "output", "message")
    )


def is_invoke_model(value: Any) -> bool:
    """Return True if a message looks like a frame of InvokeModel, with Base64."""
    return bool(text_at(value, "bytes") or text_at(value, "chunk", "bytes"))
