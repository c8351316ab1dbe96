"""The Lua files, loaded as package data, and what they answer in MessagePack."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

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
    list[tuple[int, int, str, list[str]]],
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


class Script:
    """One script, called by its digest, or by its source where the server does not know it (any more).

    In a cluster redis-py's own would be loaded on every master, and so on none while one of them is away.
    """

    def __init__(self, client: Redis, name: str) -> None:
        self._client = client
        self._source = source(name)
        self._digest = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it where the keys are: or where they go, while their slot is on its way to another master."""
        try:
            return await self._client.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.eval(self._source, len(keys), *keys, *args)

    async def load(self, key: str) -> None:
        """Have the server of a key know it."""
        client: Any = self._client
        where: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            await client.initialize()  # the map, if it has to be read anew
            (where["target_nodes"],) = await client.get_nodes_from_slot("EXISTS", key)
        await client.execute_command("SCRIPT LOAD", self._source, **where)
