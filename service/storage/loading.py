"""How responses are read: in calls of a few megabytes each, so that none of them holds up the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from handlers.core.identity import StreamKey

_BYTES_AT_ONCE = 4 * 1024 * 1024
"""Bytes that a call reads, about: a key may have more."""

_KEYS_AT_ONCE = 1000
"""Keys that a call reads."""


class Wanted(NamedTuple):
    """What there is to read of a response."""

    stream_key: StreamKey
    state: str
    """The key of its state."""
    state_bytes: int
    logs: Mapping[str, str]
    """The keys of its open logs, by their parts' fields."""
    log_bytes: Sequence[int]
    """How long these were."""


def calls_of(responses: Iterable[Wanted]) -> Iterator[list[tuple[str, str]]]:
    """Yield the calls: for each its keys, with what they are. Of each response the state comes last."""
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
