"""The Lua files, loaded as package data, and the plans they take: MessagePack, one structure a script."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript


def source(name: str) -> str:
    """The text of one script."""
    return files("service.storage").joinpath(f"{name}.lua").read_text(encoding="utf-8")


def register(client: Redis, name: str) -> AsyncScript:
    """One script, to be called by its digest and loaded when the server does not know it (any more)."""
    return client.register_script(source(name))


class Call:
    """The keys and the blobs of one call of a script; its plan names both by number, from 1.

    Scripts declare every key. Binary values stand beside the plan, because the server's MessagePack
    reader knows text only.
    """

    __slots__ = ("_numbers", "blobs", "keys")

    def __init__(self, *fixed: str) -> None:
        self.keys: list[str] = list(fixed)
        self.blobs: list[bytes] = []
        self._numbers: dict[str, int] = {}

    def key(self, key: str) -> int:
        """The number of a key in this call."""
        if key not in self._numbers:
            self.keys.append(key)
            self._numbers[key] = len(self.keys)
        return self._numbers[key]

    def blob(self, value: bytes) -> int:
        """The number of a binary value in this call."""
        self.blobs.append(value)
        return len(self.blobs)


class PlannedRegister(msgspec.Struct):
    """A value of a response's context."""

    name: str
    value: str


class PlannedEnding(msgspec.Struct):
    """An ending of a response."""

    field: str
    blob: int


class PlannedPart(msgspec.Struct, omit_defaults=True):
    """What a batch adds to a part."""

    field: str
    log: int
    chunk: int
    bytes_limit: int
    entries: list[int]
    opened: list[str] | None = None


class PlannedResponse(msgspec.Struct, omit_defaults=True):
    """What a batch adds to a response."""

    state: int
    member: str
    latest_ms: int
    entries: list[int]
    parts: list[PlannedPart]
    registers: list[PlannedRegister]
    endings: list[PlannedEnding]
    closing_ms: int | None = None


class PlannedLetter(msgspec.Struct):
    """A dead letter."""

    entry: int
    fields: list[str]


class PlannedCount(msgspec.Struct):
    """Events of one type without a handler."""

    type: str
    entries: list[int]


class CommitPlan(msgspec.Struct):
    """What commit.lua takes."""

    entries: list[str]
    dead_letters: list[PlannedLetter]
    counts: list[PlannedCount]
    touched: list[int | str]
    responses: list[PlannedResponse]
    ttl_ms: int
    fragments_limit: int
    ready_at_most: int
    stalled_ms: int


class PlannedText(msgspec.Struct, omit_defaults=True):
    """A finished text."""

    field: str
    log: int
    item: int
    item_field: str
    message: list[str]
    json: str
    fragments: int
    opened: list[str] | None = None
    finished: list[str] | None = None


class PlannedSettlement(msgspec.Struct, omit_defaults=True):
    """What to write for one response."""

    state: int
    member: str
    version: int
    spent: list[str]
    ended: bool
    texts: list[PlannedText]
    doubtful_ms: int | None = None
    idle_since_ms: int | None = None


class SettlePlan(msgspec.Struct):
    """What settle.lua takes."""

    settlements: list[PlannedSettlement]
    marker_ttl_ms: int
    item_ttl_ms: int


LowWaterReply = tuple[str, str, bool]
CommitReply = tuple[list[tuple[int, int]], int, list[tuple[int, int]], int, LowWaterReply, list[str]]
SettleReply = list[tuple[int, int]]
SurveyReply = tuple[LowWaterReply, str, list[str], list[str], list[str]]

_encode = msgspec.msgpack.Encoder().encode
decode_commit = msgspec.msgpack.Decoder(CommitReply).decode
decode_settle = msgspec.msgpack.Decoder(SettleReply).decode
decode_survey = msgspec.msgpack.Decoder(SurveyReply).decode


def encode(plan: Any) -> bytes:
    """A plan as a script takes it."""
    return _encode(plan)
