"""Split the reading of responses into calls of a few megabytes, so that none blocks the server for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from handlers.core.identity import StreamKey

_BYTES_AT_ONCE = 4 * 1024 * 1024
"""Approximate maximum bytes that a call reads; a single key may have more."""

_KEYS_AT_ONCE = 1000
"""Maximum keys that a call reads."""


class Wanted(NamedTuple):
    """The keys to read for one response, with their sizes."""

    stream_key: StreamKey
    state: str
    """The key of its state."""
    state_bytes: int
    logs: Mapping[str, str]
    """The keys of its open logs, by the field of their part."""
    log_bytes: Sequence[int]
    """The bytes of these logs, in the same order."""


def reads_of(responses: Iterable[Wanted]) -> Iterator[list[tuple[str, str]]]:
    """Yield the calls, each a list of (key, `state` or `log`). The state of a response follows its logs."""
    call: list[tuple[str, str]] = []
    filled = 0
    for response in responses:
        keys = [
            *(
                (log, "log", size)
                for log, size in zip(response.logs.values(), response.log_bytes, strict=True)
            ),
            (response.state, "state", response.state_bytes),
        ]
        total = sum(size for *_, size in keys)
        if call and (filled + total > _BYTES_AT_ONCE or len(call) + len(keys) > _KEYS_AT_ONCE):
            yield call
            call, filled = [], 0
        for key, kind, size in keys:
            if call and filled + size > _BYTES_AT_ONCE:
                yield call
                call, filled = [], 0
            call.append((key, kind))
            filled += size
    if call:
        yield call
