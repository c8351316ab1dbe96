"""The Lua files, loaded as package data, and what they answer in MessagePack."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

LowWaterReply = tuple[str, str, bool]
CommitReply = tuple[
    list[tuple[int, int]],
    int,
    list[tuple[int, int]],
    int,
    LowWaterReply,
    list[str],
    list[int],
    list[tuple[int, int]],
    str,
    bool,
    list[int],
]
SettleReply = list[tuple[int, int]]
SurveyReply = tuple[LowWaterReply, str, list[str], list[str], list[str], str]
RatesReply = tuple[list[str], list[int], list[str], list[int]]

decode_commit = msgspec.msgpack.Decoder(CommitReply).decode
decode_settle = msgspec.msgpack.Decoder(SettleReply).decode
decode_survey = msgspec.msgpack.Decoder(SurveyReply).decode
decode_rates = msgspec.msgpack.Decoder(RatesReply).decode


def source(name: str) -> str:
    """The text of one script."""
    return files("service.storage").joinpath(f"{name}.lua").read_text(encoding="utf-8")


def register(client: Redis, name: str) -> AsyncScript:
    """One script, to be called by its digest and loaded when the server does not know it (any more)."""
    return client.register_script(source(name))
