"""Read whole streams of providers in the simplest way, to compare the translators with.

This reader shares no code with the translators and is written after the providers' documentation: it has all
messages of a body before it begins, keeps no state between them, and raises errors for odd ones.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Message = dict[str, Any]

_SAFE = frozenset(
    {
        "stop", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call", "complete",
        "tool_call", "pause_turn", "eos", "unload", "load",
    }
)  # fmt: skip
_LENGTHS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FAILURES = frozenset(
    {
        "error", "network_error", "malformed_function_call", "malformed_response", "unexpected_tool_call",
        "too_many_tool_calls", "missing_thought_signature", "malformed_model_output", "malformed_tool_use",
        "language", "no_image", "insufficient_system_resource",
    }
)  # fmt: skip


class Read(NamedTuple):
    """The content of a stream."""

    texts: list[tuple[str, str]]
    """Kind and text of each part that has a text, sorted; summaries of reasoning count as reasoning."""
    closed: list[tuple[str, str]]
    """The same of the parts that the provider closed."""
    is_redacted: bool
    status: str
    reason: str | None = None
    category: str | None = None
    explanation: str | None = None
    has_fallback: bool = False


class _Parts:
    """Texts by place, in pieces."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[Any, str], list[str]] = defaultdict(list)
        self.closed: set[Any] = set()

    def add(self, place: Any, kind: str, piece: object) -> None:
        if isinstance(piece, str) and piece:
            self.pieces[place, kind].append(piece)

    def texts(self) -> list[tuple[str, str]]:
        return sorted((kind, "".join(pieces)) for (_, kind), pieces in self.pieces.items())

    def closed_texts(self) -> list[tuple[str, str]]:
        return sorted(
            (kind, "".join(pieces)) for (place, kind), pieces in self.pieces.items() if place in self.closed
        )


def _status(reason: str | None) -> str:
    if reason is None or reason.lower() in _SAFE:
        return "completed"
    return "failed" if reason.lower() in _FAILURES else "incomplete"


def _gravest(ends: Iterable[tuple[str, str | None]]) -> tuple[str, str | None]:
    """Return a block or another early end, else a failure, else a natural end."""
    by_gravity = {"incomplete": 0, "failed": 1, "completed": 2}
    return min(
        ends,
        key=lambda end: 1.5 if str(end[1]).lower() in _LENGTHS else by_gravity[end[0]],
        default=("failed", "stream_interrupted"),
    )


def read_chat(messages: list[Message]) -> Read:  # noqa: C901, PLR0912, PLR0915 - a dialect in one place
    """Read Chat Completions: a part is a choice's kind, and a choice ends with its reason."""
    parts = _Parts()
    ends: dict[int, str] = {}
    fields: dict[int, str] = {}
    contents: dict[int, list[str]] = defaultdict(list)
    error: Any = None
    encrypted: set[int] = set()
    told: set[int] = set()  # choices whose reasoning has a text, not only a summary
    seen: set[int] = set()
    is_done = {"[DONE]": True} in messages
    filtered: dict[str, None] = {}
    tag = (
        "reasoning" if any("openai.gpt-oss" in str(message.get("model")) for message in messages) else "think"
    )
    for message in messages:
        error = error or message.get("error")
        for result in message.get("prompt_filter_results") or []:
            filtered.update(_filtered(result.get("content_filter_results")))
        for choice in message.get("choices") or []:
            index = choice.get("index") or 0
            seen.add(index)
            filtered.update(_filtered(choice.get("content_filter_results")))
            error = error or choice.get("error")
            delta = choice.get("delta") or choice.get("message") or {}
            content = delta.get("content")
            if isinstance(content, list):
                for item in content:
                    if item.get("type") == "thinking":
                        for each in item["thinking"]:
                            parts.add(index, "reasoning", each.get("text"))
                    else:
                        contents[index].append(item.get("text") or "")
            else:
                contents[index].append(content or choice.get("text") or "")
            parts.add(index, "refusal", delta.get("refusal"))
            details = delta.get("reasoning_details") or []
            carriers = {
                "reasoning_content": delta.get("reasoning_content"),
                "reasoning": delta.get("reasoning"),
                "reasoning_details": "".join(
                    each.get("text") or each.get("summary") or "" for each in details
                ),
            }
            encrypted |= {index for each in details if each.get("type") == "reasoning.encrypted"}
            if any(carriers.values()) and not any(each.get("summary") for each in details):
                told.add(index)
            for name, text in carriers.items():
                if text and fields.setdefault(index, name) == name:
                    parts.add(index, "reasoning", text)
            reason = choice.get("finish_reason")
            native = choice.get("native_finish_reason")
            if native and (_status(native) == "failed" or native.lower() in _LENGTHS):
                reason = native
            if reason:
                ends[index] = reason
                parts.closed.add(index)
    for index, pieces in contents.items():
        text = "".join(pieces)
        has_field = (index, "reasoning") in parts.pieces
        while text.lstrip().startswith(f"<{tag}>") and not has_field:
            reasoning, _, text = text.lstrip().removeprefix(f"<{tag}>").partition(f"</{tag}>")
            parts.add(index, "reasoning", reasoning)
            if tag == "think":
                break
        parts.add(index, "output_text", text)
    open_choices = seen - set(ends) if not is_done else set()
    breaks = [("failed", "stream_interrupted")] * len(open_choices)
    status, reason = _gravest([*((_status(end), end) for end in ends.values()), *breaks])
    if error:
        status = "failed"
        reason = str(error.get("code") or error.get("type") or reason) if isinstance(error, dict) else reason
    if not ends and not error and is_done:
        status = "completed"
    if status == "completed":
        reason = None
    if filtered and status == "completed":
        status, reason = "incomplete", "content_filter"
    return Read(
        parts.texts(),
        parts.closed_texts(),
        not encrypted <= told,
        status,
        reason,
        ", ".join(sorted(filtered)) or None,
    )


def _filtered(results: Any) -> dict[str, None]:
    return {
        name: None
        for name, found in (results or {}).items()
        if isinstance(found, dict) and found.get("filtered")
    }


def read_anthropic(messages: list[Message]) -> Read:  # noqa: C901 - a dialect in one place
    """Read Anthropic's messages: a part is a block, and the first message ends the response."""
    parts = _Parts()
    is_redacted = has_fallback = is_over = False
    stop: Message = {}
    error: Message | None = None
    thinking: dict[Any, bool] = {}
    starts: dict[int, int] = defaultdict(int)
    for message in messages:
        number = message.get("index", 0)
        starts[number] += message["type"] == "content_block_start"
        index = (number, starts[number])
        match message["type"]:
            case "content_block_start":
                block = message["content_block"]
                is_redacted |= block["type"] == "redacted_thinking"
                has_fallback |= block["type"] == "fallback"
                if block["type"] == "thinking":
                    thinking[index] = bool(block.get("thinking"))
                    parts.add(index, "reasoning", block.get("thinking"))
                if block["type"] == "text":
                    parts.add(index, "output_text", block.get("text"))
            case "content_block_delta":
                delta = message["delta"]
                if delta["type"] == "text_delta":
                    parts.add(index, "output_text", delta["text"])
                if delta["type"] == "thinking_delta":
                    thinking[index] = thinking.get(index) or bool(delta["thinking"])
                    parts.add(index, "reasoning", delta["thinking"])
            case "content_block_stop":
                parts.closed.add(index)
            case "message_delta":
                stop.update({key: each for key, each in message["delta"].items() if each is not None})
                iterations = (message.get("usage") or {}).get("iterations") or []
                has_fallback |= any(each.get("type") == "fallback_message" for each in iterations)
            case "message_stop":
                is_over = True
                break
            case "error":
                error = message["error"]
                break
    is_redacted |= not all(thinking.values())
    if error:
        return Read(
            parts.texts(),
            parts.closed_texts(),
            is_redacted,
            "failed",
            error.get("type"),
            None,
            None,
            has_fallback,
        )
    reason = stop.get("stop_reason")
    details = stop.get("stop_details") or {}
    status = _status(reason) if is_over or reason else "failed"
    reason = reason or "stream_interrupted"
    return Read(
        parts.texts(), parts.closed_texts(), is_redacted, status, None if status == "completed" else reason,
        details.get("category"), details.get("explanation"), has_fallback,
    )  # fmt: skip


def read_gemini(messages: list[Message]) -> Read:
    """Read Gemini's chunks: a part is a candidate's kind, and a candidate ends with its reason."""
    parts = _Parts()
    ends: dict[int, str] = {}
    explanations: dict[str, str | None] = {}
    categories: dict[str, None] = {}
    blocked: Message = {}
    error: Message | None = None
    for message in messages:
        error = error or message.get("error")
        feedback = message.get("promptFeedback") or {}
        if feedback.get("blockReason"):
            blocked = feedback
        for candidate in message.get("candidates") or []:
            index = candidate.get("index") or 0
            for part in (candidate.get("content") or {}).get("parts") or []:
                parts.add(
                    index, "reasoning" if part.get("thought") is True else "output_text", part.get("text")
                )
            if reason := candidate.get("finishReason"):
                ends[index] = reason
                explanations[reason] = candidate.get("finishMessage")
                parts.closed.add(index)
            for rating in candidate.get("safetyRatings") or []:
                categories |= {rating["category"]: None} if rating.get("blocked") else {}
    status, reason = _gravest((_status(end), end) for end in ends.values())
    found = Read(parts.texts(), parts.closed_texts(), is_redacted=False, status=status)
    if blocked:
        return found._replace(
            status="incomplete",
            reason=blocked["blockReason"],
            explanation=blocked.get("blockReasonMessage"),
        )
    if error:
        return found._replace(status="failed", reason=error.get("status"))
    if status == "completed":
        return found
    category = ", ".join(sorted(categories)) or None
    return found._replace(reason=reason, category=category, explanation=explanations.get(str(reason)))


def read_converse(messages: list[Message]) -> Read:  # noqa: C901 - a dialect in one place
    """Read events of Bedrock's ConverseStream, by the name of the event: a part is a block."""
    parts = _Parts()
    is_redacted = False
    reason: str | None = None
    guardrail: Any = {}
    for message in messages:
        for name, event in message.items():
            if not isinstance(event, dict):
                continue
            if name == "contentBlockDelta":
                index, delta = event.get("contentBlockIndex", 0), event["delta"]
                parts.add(index, "output_text", delta.get("text"))
                thought = delta.get("reasoningContent") or {}
                parts.add(index, "reasoning", thought.get("text"))
                is_redacted |= bool(thought.get("redactedContent"))
            if name == "contentBlockStop":
                parts.closed.add(event.get("contentBlockIndex", 0))
            if name == "messageStop":
                reason = event["stopReason"]
            if name == "metadata":
                guardrail = (event.get("trace") or {}).get("guardrail") or {}
            if name.endswith("Exception"):
                return Read(parts.texts(), parts.closed_texts(), is_redacted, "failed", name)
    status = _status(reason) if reason else "failed"
    reason = reason or "stream_interrupted"
    traces = [
        guardrail,
        *(each["amazon-bedrock-trace"] for each in messages if "amazon-bedrock-trace" in each),
    ]
    actions = set(_values(traces, "action"))
    if "ANONYMIZED" in actions and "BLOCKED" not in actions:
        status = "completed" if reason == "guardrail_intervened" else status
    elif any(each.get("amazon-bedrock-guardrailAction") == "INTERVENED" for each in messages):
        status, reason = "incomplete", "INTERVENED"
    return Read(
        parts.texts(), parts.closed_texts(), is_redacted, status, None if status == "completed" else reason
    )


def _values(value: Any, key: str) -> Iterable[Any]:
    """Yield the values of a key at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key and isinstance(each, str):
                yield each
            yield from _values(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, key)


def read_responses(messages: list[Message]) -> Read:
    """Read events of the Responses API, as providers send them and as translators make them."""
    kinds = {
        "response.refusal": ("refusal", "refusal"),
        "response.reasoning_text": ("reasoning", "text"),
        "response.reasoning_summary_text": ("reasoning", "text"),
        "response.output_text": ("output_text", "text"),
    }
    pieces: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    whole: dict[tuple[Any, ...], str] = {}
    is_redacted = has_fallback = False
    for message in messages:
        name, _, verb = message["type"].rpartition(".")
        if name in kinds:
            kind, field = kinds[name]
            place = (
                kind,
                name,
                message.get("output_index"),
                message.get("content_index"),
                message.get("summary_index"),
            )
            if verb == "delta":
                pieces[place].append(message["delta"])
            elif field in message:
                whole[place] = message[field]
            else:
                whole[place] = "".join(pieces[place])
        is_redacted |= message["type"] == "deltaloom.part.redacted" or _is_withheld(message.get("item") or {})
        has_fallback |= message["type"] == "deltaloom.response.fallback"
        if name == "response" and verb in {"completed", "incomplete", "failed", "cancelled"}:
            break
    else:
        verb, message = "failed", {"response": {"error": {"code": "stream_interrupted"}}}
    response = message.get("response") or {}
    is_redacted |= any(map(_is_withheld, response.get("output") or []))
    details = response.get("error") or response.get("incomplete_details") or {}
    texts = {place: "".join(each) for place, each in pieces.items()} | whole
    return Read(
        sorted((place[0], text) for place, text in texts.items() if text),
        sorted((place[0], text) for place, text in whole.items() if text),
        is_redacted,
        verb,
        details.get("reason") or details.get("code"),
        details.get("provider_category"),
        details.get("provider_explanation"),
        has_fallback,
    )


def _is_withheld(item: Message) -> bool:
    """Return True for a finished item with encrypted reasoning and without its text."""
    is_encrypted = item.get("type") == "reasoning" and item.get("encrypted_content")
    return bool(is_encrypted) and not any(each.get("text") for each in item.get("content") or [])


def read_interactions(messages: list[Message]) -> Read:
    """Read events of Gemini Interactions: a part is a step's kind."""
    parts = _Parts()
    status: str | None = None
    silent: set[Any] = set()  # thoughts with a signature
    for message in messages:
        index, delta = message.get("index"), message.get("delta") or {}
        match message.get("event_type"):
            case "step.delta" if delta["type"] == "thought_signature":
                silent |= {index}
            case "step.delta" if delta["type"] == "thought_summary":
                parts.add(index, "reasoning", delta["content"].get("text"))
            case "step.delta" if delta["type"] == "text":
                parts.add(index, "output_text", delta["text"])
            case "step.stop":
                parts.closed.add(index)
            case "interaction.completed":
                status = message["interaction"]["status"]
    is_redacted = any((index, "reasoning") not in parts.pieces for index in silent & parts.closed)
    return Read(
        parts.texts(),
        parts.closed_texts(),
        is_redacted,
        status or "failed",
        None if status else "stream_interrupted",
    )


def read_cohere(messages: list[Message]) -> Read:
    """Read events of Cohere: a part is a content, or the plan of tools, which ends with it."""
    parts = _Parts()
    reason = "stream_interrupted"
    status = "failed"
    for message in messages:
        delta = message.get("delta") or {}
        match message.get("type"):
            case "content-start" | "content-delta":
                content = delta["message"]["content"]
                parts.add(message["index"], "reasoning", content.get("thinking"))
                parts.add(message["index"], "output_text", content.get("text"))
            case "tool-plan-delta":
                parts.add("plan", "reasoning", delta["message"]["tool_plan"])
            case "content-end":
                parts.closed.add(message["index"])
            case "message-end":
                reason = delta["finish_reason"]
                status = _status(reason)
                parts.closed |= set() if "error" in delta else {"plan"}
    texts = parts.texts(), parts.closed_texts()
    return Read(*texts, is_redacted=False, status=status, reason=None if status == "completed" else reason)


def read_ollama(messages: list[Message]) -> Read:
    """Read lines of Ollama: a part is a kind, and the last line closes both."""
    parts = _Parts()
    reason = "stream_interrupted"
    status = "failed"
    for message in messages:
        words = message.get("message") or message
        parts.add("answer", "reasoning", words.get("thinking"))
        parts.add("answer", "output_text", words.get("content") or words.get("response"))
        if message["done"]:
            reason = message.get("done_reason") or "stop"
            status = _status(reason)
            parts.closed.add("answer")
    texts = parts.texts(), parts.closed_texts()
    return Read(*texts, is_redacted=False, status=status, reason=None if status == "completed" else reason)


def read_agents(messages: list[Message]) -> Read:
    """Read events of InvokeAgent, whose answer ends with the stream; rationales come whole."""
    parts = _Parts()
    blocked: set[str] = set()
    is_cut = {"[CUT]": True} in messages
    for number, message in enumerate(messages):
        if "bytes" in message:
            parts.add("answer", "output_text", base64.b64decode(message["bytes"]).decode())
        for name, step in ((message.get("trace") or {}).get("trace") or {}).items():
            if name == "guardrailTrace" and step["action"] == "INTERVENED":
                blocked |= {
                    policy
                    for assessment in [*step.get("inputAssessments", []), *step.get("outputAssessments", [])]
                    for policy, found in assessment.items()
                    if "BLOCKED" in _values(found, "action")
                }
            thought = (step.get("modelInvocationOutput") or {}).get("reasoningContent") or {}
            for key, words in (("rationale", step.get("rationale")), ("model", thought.get("reasoningText"))):
                parts.add((number, name, key), "reasoning", (words or {}).get("text"))
    parts.closed |= {place for place, _ in parts.pieces if place != "answer" or not is_cut}
    texts = parts.texts(), parts.closed_texts()
    if blocked:
        category = ", ".join(sorted(blocked))
        return Read(*texts, is_redacted=False, status="incomplete", reason="INTERVENED", category=category)
    if is_cut:
        return Read(*texts, is_redacted=False, status="failed", reason="stream_interrupted")
    return Read(*texts, is_redacted=False, status="completed")


def read_invoked(messages: list[Message]) -> Read:
    """Read InvokeModel: messages of another dialect; any of them may say that a guardrail intervened."""
    own = invoked(messages)
    if any(each.get("type") == "message_start" for each in own):
        found = read_anthropic(own)
    elif any("choices" in each for each in own):
        found = read_chat(own)
    else:
        found = read_converse(own)
    if any(each.get("amazon-bedrock-guardrailAction") == "INTERVENED" for each in own):
        return found._replace(status="incomplete", reason="INTERVENED")
    return found


def read_unknown(_: list[Message]) -> Read:
    """Read nothing: the answers of OpenAI's Assistants are recorded, but have no translator."""
    return Read([], [], is_redacted=False, status="failed", reason="dialect_unknown")


READERS: dict[str, Callable[[list[Message]], Read]] = {
    "openai.chat": read_chat,
    "anthropic.messages": read_anthropic,
    "gemini.generate_content": read_gemini,
    "bedrock.converse": read_converse,
    "openai.responses": read_responses,
    "gemini.interactions": read_interactions,
    "cohere.chat": read_cohere,
    "ollama.chat": read_ollama,
    "bedrock.agents": read_agents,
    "bedrock.invoke_model": read_invoked,
    "": read_unknown,
}


def before_break(body: bytes) -> bytes:
    """Return the whole messages of a body that breaks off somewhere."""
    if not body.startswith((b"{", b"[")):
        return body[: body.rfind(b"\n\n") + 2]
    start = body.rfind(b"\n") + 1
    rest = body[start:]
    try:
        json.loads(rest.replace(b"[DONE]", b"0"))
    except ValueError:
        return body[:start]
    return body


def messages_of(body: bytes) -> list[Message]:
    """Return the messages of server-sent events or of JSON lines; `[DONE]` is `{"[DONE]": True}`."""
    messages: list[Message] = []
    for line in body.decode().splitlines():
        name, colon, value = line.partition(":")
        data = value.strip() if colon and name == "data" else line.strip()
        if data == "[DONE]":
            messages.append({"[DONE]": True})
        elif data.startswith(("{", "[")):
            found = json.loads(data)
            messages += found if isinstance(found, list) else [found]
    return messages


def invoked(messages: list[Message]) -> list[Message]:
    """Return the messages in the chunks of Bedrock's InvokeModelWithResponseStream."""
    return [
        json.loads(base64.b64decode(each["chunk"]["bytes"])) if "chunk" in each else each for each in messages
    ]
