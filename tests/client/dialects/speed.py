"""Measure the translators: microseconds of CPU an event, and megabytes a second, of each dialect.

    python -m tests.client.dialects.speed

A stream has 2,000 deltas of one word, and comes in pieces of 1,400 bytes. The fastest of several runs counts.
The loop of 2 million additions that is printed too is a measure of the machine.
"""

from __future__ import annotations

import argparse
import base64
import gc
import sys
import time
from typing import TYPE_CHECKING

from deltaloom.dialects import Translator
from tests.client.dialects.streams import (
    TEXT,
    Object,
    block,
    candidate,
    chunk,
    converse,
    frames,
    invoked,
    json_lines,
    message,
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (["The", " quick", " brown", " fox", " jumps", " over", " a", " lazy", " dog", "."] * 200)[:2000]
PIECE_BYTES = 1400


def _responses() -> Iterator[Object]:
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_68f0c1a2b3c4d5e6f7a8b9c0d1e2f3a4"}
    yield {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}}
    for number, word in enumerate(WORDS):
        delta: Object = {"type": "response.output_text.delta", "delta": word, "logprobs": []}
        yield {**delta, **place, "sequence_number": number + 1, "obfuscation": "abcdefgh"}
    yield {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}}


def _interactions() -> Iterator[Object]:
    yield {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}}
    for word in WORDS:
        yield {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": word}}
    yield {"event_type": "interaction.completed", "interaction": {"status": "completed"}}


def _cohere() -> Iterator[Object]:
    for word in WORDS:
        yield {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}
    yield {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}


def _ollama() -> Iterator[Object]:
    line: Object = {"model": "qwen3", "created_at": "2026-11-01T00:00:00Z", "done": False}
    for word in WORDS:
        yield {**line, "message": {"role": "assistant", "content": word}}
    yield {**line, "done": True, "done_reason": "stop"}


def _converse() -> list[Object]:
    start, delta, *rest = converse({"text": "x"})
    words = [{**delta["contentBlockDelta"], "delta": {"text": word}} for word in WORDS]
    return [start, *({"contentBlockDelta": each} for each in words), *rest]


def bodies() -> dict[str, bytes]:
    """Return a body of each dialect."""
    answer = message(block(0, TEXT, ({"type": "text_delta", "text": word} for word in WORDS)))
    agent = [{"chunk": {"bytes": base64.b64encode(word.encode()).decode()}} for word in WORDS]
    return {
        "openai.chat": sse([*(chunk({"content": word}) for word in WORDS), chunk(finish="stop")], done=True),
        "openai.responses": sse(_responses()),
        "anthropic.messages": sse(answer),
        "gemini.generate_content": sse(
            [*(candidate({"text": word}) for word in WORDS), candidate(finish="STOP")]
        ),
        "gemini.interactions": sse(_interactions()),
        "bedrock.converse": frames(_converse()),
        "bedrock.agents": frames(agent),
        "bedrock.invoke_model": invoked(answer),
        "cohere.chat": sse(_cohere()),
        "ollama.chat": json_lines(_ollama()),
    }


def translation_seconds(dialect: str, body: bytes) -> float:
    """Return the CPU seconds of the translation of a body."""
    translator = Translator(dialect)
    pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)]
    gc.collect()
    begin = time.process_time()
    count = sum(len(translator.feed(piece)) for piece in pieces) + len(translator.end())
    seconds = time.process_time() - begin
    if count < len(WORDS):
        raise RuntimeError(f"{dialect}: {count} events")
    return seconds


def loop_seconds() -> float:
    """Return the CPU seconds of 2 million additions."""
    begin, total = time.process_time(), 0
    for number in range(2_000_000):
        total += number
    return time.process_time() - begin


def main() -> None:
    """Print a line for each dialect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of each dialect")
    runs = parser.parse_args().runs
    for dialect, body in bodies().items():
        loop, seconds = [], []
        for _ in range(runs):
            loop.append(loop_seconds())
            seconds.append(translation_seconds(dialect, body))
        best, worst = (round(each / len(WORDS) * 1e6, 1) for each in (min(seconds), max(seconds)))
        rate = len(body) / min(seconds) / 1e6
        sys.stdout.write(
            f"{dialect:24} {best} us an event (at most {worst}), {rate:.1f} MB/s; loop {min(loop):.3f} s\n"
        )


if __name__ == "__main__":
    main()
