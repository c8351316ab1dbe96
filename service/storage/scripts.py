"""Load and call the Lua scripts, which are package data."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from service.keys import type_of
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

FOLDER = files("service.storage").joinpath("lua")


def source(name: str) -> str:
    """Return the text of a script: its first line with the flags, the prelude, and the rest of its file."""
    flags, own = FOLDER.joinpath(f"{name}.lua").read_text(encoding="utf-8").split("\n", 1)
    shared = FOLDER.joinpath("prelude.lua").read_text(encoding="utf-8")
    return f"{flags}\n{shared}\n{own}"


class Script:
    """A script, called by its digest, or by its source if the server does not have it.

    redis-py's own class loads a script on all masters of a cluster, and fails while one of them is down.
    """

    def __init__(self, client: Redis, name: str) -> None:
        self._client = client
        self._source = source(name)
        self._digest = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script on the server that has the keys.

        Raises:
            ResponseError: the server's answer; a WRONGTYPE error names the key.
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
        """Return an error that names the first key of a wrong type; the same error if all types are right."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.type(key)
        for key, found in zip(keys, await pipeline.execute(), strict=True):
            expected, is_a = type_of(key), found.decode()
            if is_a not in {"none", expected}:
                return ResponseError(f"WRONGTYPE the key {visible(key)} is a {is_a}, not a {expected}")
        return error

    async def load(self, key: str) -> None:
        """Load the script on the server that has a key."""
        client: Any = self._client
        where: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            await client.initialize()  # reads the slot map again, if that is necessary
            (where["target_nodes"],) = await client.get_nodes_from_slot("EXISTS", key)
        await client.execute_command("SCRIPT LOAD", self._source, **where)
