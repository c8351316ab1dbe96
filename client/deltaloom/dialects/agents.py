"""Translate Bedrock Agents: `bytes` with pieces of the answer, and traces of the orchestration."""

from __future__ import annotations

import base64
import binascii
import codecs
from typing import TYPE_CHECKING, Any

from deltaloom.dialects.bedrock import blocked_by
from deltaloom.dialects.ends import ending_of
from deltaloom.dialects.errors_in_bodies import error_ending
from deltaloom.dialects.framing import DONE, WireMessage
from deltaloom.dialects.json_values import Object, object_at, text_at
from deltaloom.dialects.writing import COMPLETED

if TYPE_CHECKING:
    from deltaloom.dialects.writing import ResponseWriter

_ANSWER = "answer"


class Agents:
    """Reads the events of InvokeAgent."""

    PROVIDER = "aws.bedrock"

    def __init__(self, writer: ResponseWriter, provider: str) -> None:
        self._writer = writer
        self._provider = provider
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rationales = 0

    def read(self, message: WireMessage) -> None:
        """Read one event."""
        if message.value is DONE:
            return
        event = object_at(message.value)
        if message.event.startswith("!"):
            self._writer.end(error_ending({"code": message.event[1:], **event}, self._provider))
            return
        if trace := object_at(event, "trace"):
            self._read_trace(object_at(trace, "trace") or trace)
        if data := text_at(event, "bytes") or text_at(event, "chunk", "bytes"):
            try:
                text = self._decoder.decode(base64.b64decode(data, validate=True))
            except (ValueError, binascii.Error):
                self._writer.lose("chunk that is not Base64")
                return
            self._writer.delta(_ANSWER, "output_text", text)

    def finish(self) -> None:
        """Write the end of the response. Its own end is the end of the stream."""
        if self._writer.is_cut:
            self._writer.end(self._writer.interruption)
            return
        self._writer.close(_ANSWER)
        self._writer.end(COMPLETED)

    def _read_trace(self, trace: Object) -> None:
        guardrail = object_at(trace, "guardrailTrace")
        if text_at(guardrail, "action") == "INTERVENED":
            blocked = ", ".join(sorted(set(blocked_by(guardrail))))
            if blocked:  # another guardrail of the same answer may have masked only words
                field = "guardrailTrace.action"
                self._writer.block = ending_of(
                    "INTERVENED", provider=self.PROVIDER, field=field, category=blocked
                )
        for step in _STEPS:
            found = object_at(trace, step)
            reasoning = object_at(found, "modelInvocationOutput", "reasoningContent", "reasoningText")
            for text in (text_at(found, "rationale", "text"), text_at(reasoning, "text")):
                if text:
                    self._rationales += 1
                    self._writer.whole(("rationale", self._rationales), "reasoning", text)


_STEPS = ("orchestrationTrace", "postProcessingTrace", "preProcessingTrace", "routingClassifierTrace")
"""Traces of steps in which a model may reason. A trace has one of them; several are read in this order."""

_TRACES = frozenset({*_STEPS, "customOrchestrationTrace", "failureTrace", "guardrailTrace"})


def is_agents(value: Any) -> bool:
    """Return True if a message looks like an event of InvokeAgent."""
    event = object_at(value)
    trace = object_at(event, "trace")
    if (
        "agentId" in trace
        or ("agentId" in event and trace)
        or _TRACES & trace.keys()
        or _TRACES & object_at(trace, "trace").keys()
    ):
        return True
    data = text_at(event, "bytes") if len(event) <= 2 else ""  # noqa: PLR2004 - `bytes` and `attribution`
    try:
        return bool(data) and not base64.b64decode(data, validate=True).lstrip().startswith(b"{")
    except (ValueError, binascii.Error):
        return False
