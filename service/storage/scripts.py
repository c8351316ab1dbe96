"""The Lua files, loaded as package data, and what they answer in MessagePack."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from service.keys import type_of
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

LowWaterReply = tuple[str, str, bool, list[tuple[str, str, bool]]]
Place = tuple[int, int]
"""A part: the numbers of its response in the plan, and of itself in that response."""


class CommitReply(msgspec.Struct):
    """The answer of `commit.lua`, which describes the fields."""

    history: str
    now_ms: str
    still_there: list[int] | None = None
    overflowing: list[Place] = []
    crowded: list[Place] = []
    noted_too_often: list[int] = []
    forgotten: list[int] = []
    refused: list[tuple[int, int]] = []
    contradicted: list[tuple[int, int, str, list[str]]] = []
    acknowledged: int = 0
    opened: list[Place] = []
    late_events: int = 0
    low_water: LowWaterReply = ("", "0-0", False, [])
    ready: list[str] = []
    told_of_crowds: list[int] = []
    more: bool = False
    surplus: int = 0


SettleReply = list[tuple[int, int]]
SurveyReply = tuple[LowWaterReply, str, list[str], list[str], list[str], str, bool]
RatesReply = tuple[list[str], list[int]]

decode_commit = msgspec.msgpack.Decoder(CommitReply).decode
decode_settle = msgspec.msgpack.Decoder(SettleReply).decode
decode_survey = msgspec.msgpack.Decoder(SurveyReply).decode
decode_rates = msgspec.msgpack.Decoder(RatesReply).decode


FOLDER = files("service.storage").joinpath("lua")


def source(name: str) -> str:
    """Return the text of a script: its first line, which has its flags, what all share, and its own."""
    flags, own = FOLDER.joinpath(f"{name}.lua").read_text(encoding="utf-8").split("\n", 1)
    shared = FOLDER.joinpath("prelude.lua").read_text(encoding="utf-8")
    return f"{flags}\n{shared}\n{own}"


class Script:
    """One script, called by its digest, or by its source where the server does not know it (any more).

    In a cluster redis-py's own would be loaded on every master, and so on none while one of them is away.
    """

    def __init__(self, client: Redis, name: str) -> None:
        self._client = client
        self._source = source(name)
        self._digest = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it where the keys are: or where they go, while their slot is on its way to another master.

        Raises:
            ResponseError: the server's answer; it names the key if one has another type.
        """
        try:
            return await self._run(keys, args)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE Operation"):
                raise await self._wrong_type(keys, error) from error
            raise

    async def _run(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self._client.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.eval(self._source, len(keys), *keys, *args)

    async def _wrong_type(self, keys: Sequence[str], error: ResponseError) -> ResponseError:
        """Return the error with the name of the first key that has another type than it should."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.type(key)
        for key, found in zip(keys, await pipeline.execute(), strict=True):
            expected, is_a = type_of(key), found.decode()
            if is_a not in {"none", expected}:
                return ResponseError(f"WRONGTYPE the key {visible(key)} is a {is_a}, not a {expected}")
        return error

    async def load(self, key: str) -> None:
        """Have the server of a key know it."""
        client: Any = self._client
        where: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            await client.initialize()  # the map, if it has to be read anew
            (where["target_nodes"],) = await client.get_nodes_from_slot("EXISTS", key)
        await client.execute_command("SCRIPT LOAD", self._source, **where)
