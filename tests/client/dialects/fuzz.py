"""Fuzz the translators: mutate the samples, and look for errors, several ends, secrets, and growing state.

    python -m tests.client.dialects.fuzz --minutes 10 --dialect openai.chat

Recorded streams in the folder that RECORDED_DIALECTS names are mutated too. A failure prints the seed of its
case.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import hashlib
import json
import os
import random
import resource
import sys
import time
import zlib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltaloom.dialects import DIALECTS, Event, Translator, framing, writing
from tests.client.dialects.reading import ENDS
from tests.client.dialects.streams import SAMPLES, Object, body_of, json_lines, sse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.client.dialects.streams import Sample

BITS_OF_BODIES = (
    *(b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\"),
    *(b"data: ", b"event: error\n", b":\n", b"retry: 1\n", b"[DONE]", b"data: [DONE]\n\n", b"\xf0\x9f\x98"),
    *(b"null", b"1e999", b"\\ud83d", b'{"error":{"code":500}}', b"<think>", b"</think>", b'"index":-1,'),
)
"""Bytes that a mutation inserts."""

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**70, 1.5, float("inf"), "", "0", "é😀", "\ud83d", "x" * 300, [], {}),
    *([None], [[]], [{}], {"text": 1}, {"type": None}, {"error": {}}, {"message": "x"}, "<think>", "error"),
)
"""Values that a mutation puts in place of others."""

SMALL_LIMITS = {
    "KEPT_BYTES": 4_000,
    "TEXT_BYTES": 2_000,
    "DELTA_CHARACTERS": 500,
    "PARTS_LIMIT": 20,
    "NAMES_LIMIT": 8,
}
STATE_BYTES = 1_000_000
"""Maximum bytes that a translator may keep with the small limits, whatever it has read."""


class Finding(Exception):  # noqa: N818 - it is what the program looks for
    """A broken rule of the translators."""


def mutated_value(value: Any, chance: random.Random, rate: float) -> Any:
    """Return a JSON value of which some parts are others, missing or doubled. Secrets keep their place."""
    if chance.random() < rate and "SECRET" not in repr(value):
        return chance.choice(ODD_VALUES)
    if isinstance(value, dict):
        items = [(key, mutated_value(each, chance, rate)) for key, each in value.items()]
        return {key: each for key, each in items if chance.random() > rate / 4}
    if isinstance(value, list):
        items = [mutated_value(each, chance, rate) for each in value]
        return [each for each in items for _ in range(chance.choice((1, 1, 1, 1, 1, 1, 0, 2)))]
    return value


def mutated_messages(messages: Sequence[Object], chance: random.Random) -> list[Object]:
    """Return messages of which some are changed, missing, doubled or in another order."""
    rate = chance.choice((0.0, 0.01, 0.05, 0.2))
    found = [mutated_value(each, chance, rate) for each in messages]
    for _ in range(chance.randrange(3)):
        if found:
            found.insert(chance.randrange(len(found)), found[chance.randrange(len(found))])
    if chance.random() < 0.3 and found:
        del found[chance.randrange(len(found))]
    return [each for each in found if isinstance(each, dict)]


def mutated_bytes(body: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a body with changed, missing and inserted bytes, or with a piece of another one."""
    found = bytearray(body)
    for _ in range(chance.choice((0, 1, 1, 2, 5, 20))):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0:
                found[place:place] = chance.choice(BITS_OF_BODIES)
            case 1:
                del found[place : place + chance.choice((1, 2, 10, 100))]
            case 2 if place < len(found):
                found[place] ^= 1 << chance.randrange(8)
            case 3:
                start = chance.randrange(len(other) + 1)
                found[place:place] = other[start : start + chance.choice((10, 100, 1000))]
            case 4:
                found[place:place] = found[place : place + chance.choice((1, 50, 500))]
            case _ if chance.random() < 0.1:
                del found[place:]
    return bytes(found)


def pieces_of(body: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield a body in pieces of random sizes."""
    longest = chance.choice((1, 7, 100, 4096)) if len(body) < 20_000 else 4096
    start = 0
    while start < len(body):
        end = start + chance.randint(1, longest)
        yield body[start:end]
        start = end


def encoded(body: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return a content encoding, and the body in it."""
    match chance.randrange(6):
        case 0:
            return "gzip", gzip.compress(body, 1)
        case 1:
            return "deflate", zlib.compress(body, 1)
        case 2:
            return "deflate", zlib.compress(body, 1)[2:-4]
        case _:
            return "", body


def state_bytes(root: object) -> int:
    """Return the bytes of an object and of what it refers to, without classes, functions and modules."""
    seen: set[int] = set()
    pending, total = [root], 0
    while pending:
        each = pending.pop()
        if id(each) in seen or isinstance(each, type) or callable(each) or type(each).__name__ == "module":
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        pending += gc.get_referents(each)
    return total


def events_of(translator: Translator, pieces: Iterator[bytes], reason: Any) -> list[Event]:
    """Return all events of a body."""
    events = [event for piece in pieces for event in translator.feed(piece)]
    events += translator.end(reason)
    if translator.end() or translator.feed(b"data: {}\n\n"):
        raise Finding("there are events after the end")
    return events


def check(events: Sequence[Event], dialect: str | None) -> None:
    """Check the rules of every answer.

    Raises:
        Finding: a rule is broken.
    """
    ends = [event for event in events if event["type"] in ENDS]
    if len(ends) != 1 or events[-1] is not ends[0]:
        raise Finding(f"{len(ends)} ends, or the end is not last")
    json.dumps(events)
    if dialect == "openai.responses":  # it has the provider's numbers and texts
        return
    numbers = [event["sequence_number"] for event in events if "sequence_number" in event]
    if numbers not in ([], list(range(len(events)))):
        raise Finding(f"the events have the numbers {numbers}")
    deltas: dict[tuple[Any, ...], str] = defaultdict(str)
    closed: set[tuple[Any, ...]] = set()
    for event in events:
        base, _, verb = event["type"].rpartition(".")
        part = (base, event.get("output_index"))
        if verb == "delta":
            if part in closed:
                raise Finding(f"a delta comes after the end of its part {part}")
            deltas[part] += event["delta"]
        elif verb == "done" and event.get("integrity_source") == "producer":
            closed.add(part)
            check_whole(event, deltas[part])


def check_whole(event: Event, joined: str) -> None:
    """Check that a `.done` has the text of its deltas, or its checksum.

    Raises:
        Finding: it has another one.
    """
    text = event.get("refusal", event.get("text"))
    data = joined.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    if text is None and event.get("text_sha256") != hashlib.sha256(data).hexdigest():
        raise Finding(f"the checksum of {event} is that of another text than {joined!r:.200}")
    if text not in {None, joined}:
        raise Finding(f"{event} has another text than its deltas, {joined!r:.200}")


OPAQUE = frozenset(
    {
        *("data", "encrypted_content", "fallback_credit_token", "reasoning_opaque", "redactedContent"),
        *("signature", "thoughtSignature"),
    }
)
"""Fields whose values must not leave a translator."""


def opaque_values(value: Any) -> Iterator[str]:
    """Yield the long values of opaque fields at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in OPAQUE and isinstance(each, str) and len(each) > 30:
                yield each
            yield from opaque_values(each)
    elif isinstance(value, list):
        for each in value:
            yield from opaque_values(each)


def made_body(
    sample: Sample, samples: Sequence[Sample], recorded: Sequence[bytes], chance: random.Random
) -> tuple[bytes, set[str]]:
    """Return the body of a case, and the values that must not leave a translator.

    It is the sample, whose opaque fields have secrets, or a recording, and is changed at random.
    """
    if chance.random() < 0.5:
        messages = mutated_messages(sample.messages, chance)
        line_end = chance.choice((b"\n", b"\r\n", b"\r"))
        try:
            body = chance.choice((body_of(sample._replace(messages=messages)), json_lines(messages)))
        except (AttributeError, UnicodeEncodeError):
            body = json_lines(messages)
        if b"event" not in body[:20] and chance.random() < 0.3:
            body = sse([{k: v for k, v in each.items() if k != "type"} for each in messages], line_end)
        return body, {"SECRET"}
    if recorded and chance.random() < 0.4:
        messages = messages_of(chance.choice(recorded))
        secrets = set(opaque_values(messages))
        messages = mutated_messages(messages, chance)
        body = json_lines(messages) if chance.random() < 0.5 else b"".join(map(data_of, messages))
        return body, secrets
    body = chance.choice(recorded) if recorded and chance.random() < 0.3 else body_of(sample)
    return mutated_bytes(body, body_of(chance.choice(samples)), chance), set()


def try_once(seed: str, dialects: Sequence[str], recorded: Sequence[bytes]) -> int:
    """Try one case; return the bytes of its body.

    Raises:
        Finding: a rule is broken.
    """
    chance = random.Random(seed)
    samples = [each for each in SAMPLES.values() if each.dialect in dialects]
    sample = chance.choice(samples)
    body, secrets = made_body(sample, samples, recorded, chance)
    options: dict[str, Any] = {
        "dialect": chance.choice((None, None, sample.dialect, chance.choice(DIALECTS).name)),
        "status": chance.choice((200, 200, 200, 400, 403, 500)),
        "response_id": "r",
    }
    reason = chance.choice(("complete", "complete", "interrupted", "cancelled"))
    translator = Translator(**options)
    whole = events_of(translator, iter([body]), reason)
    check(whole, translator.dialect)
    encoding, data = encoded(body, chance)
    if events_of(Translator(content_encoding=encoding, **options), pieces_of(data, chance), reason) != whole:
        raise Finding(f"another division of the bytes gives other events (encoding {encoding!r})")
    found = json.dumps(whole, ensure_ascii=False)
    if any(secret in found for secret in secrets):
        raise Finding("a secret leaves the translator")
    if chance.random() < 0.02:
        translator = Translator(**options)
        for _ in range(200):
            translator.feed(body)
        if (size := state_bytes(translator)) > STATE_BYTES + 3 * len(body):
            raise Finding(f"the translator keeps {size} bytes")
    return len(body)


def messages_of(body: bytes) -> list[Object]:
    """Return the objects in the lines of a recording."""
    lines = (line.removeprefix(b"data:").strip() for line in body.splitlines())
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def data_of(message: Object) -> bytes:
    """Return a server-sent event without a name."""
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def recorded_bodies(dialect: str) -> list[bytes]:
    """Return the recorded streams whose names begin with the first word of a dialect or its maker."""
    folder = os.environ.get("RECORDED_DIALECTS")
    if not folder:
        return []
    words = [dialect.partition(".")[0], dialect.partition(".")[2].partition("_")[0]]
    files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix in {".jsonl", ".sse"}]
    bodies = [path.read_bytes() for path in files if path.name.startswith(tuple(words))]
    return [body for body in bodies if len(body) < 50_000]


def main() -> None:
    """Fuzz one dialect or all of them, and print how many cases were tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dialect", choices=[each.name for each in DIALECTS], help="only this one")
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes for each dialect")
    parser.add_argument("--seed", default=str(time.time_ns()), help="seed of the first case")
    parser.add_argument("--case", help="try only the case with this seed, of the dialect")
    options = parser.parse_args()
    for name, value in SMALL_LIMITS.items():
        setattr(writing, name, value)
    framing.MESSAGE_BYTES = 20_000
    for dialect in [options.dialect] if options.dialect else [each.name for each in DIALECTS]:
        recorded = recorded_bodies(dialect)
        deadline, cases, size = time.monotonic() + options.minutes * 60, 0, 0
        while time.monotonic() < deadline:
            seed = options.case or f"{options.seed}-{cases}"
            try:
                size += try_once(seed, [dialect], recorded)
            except Exception:
                sys.stderr.write(f"{dialect}: case {seed} failed\n")
                raise
            cases += 1
            if options.case:
                break
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"{dialect}: {cases} cases, {size / 1e6:.1f} MB, {peak:.0f} MB of memory at most\n")


if __name__ == "__main__":
    main()
