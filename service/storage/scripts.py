"""Load and call the Lua scripts, which are package data."""

from __future__ import annotations

from functools import cache
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

    from service.storage.client.direct import DirectConnection, DirectConnections

FOLDER = files("service.storage").joinpath("lua")


@cache
def source(name: str) -> str:
    """Return a script's whole text: its first line with the flags, the prelude, and the rest of its file."""
    flags, own = FOLDER.joinpath(f"{name}.lua").read_text(encoding="utf-8").split("\n", 1)
    shared = FOLDER.joinpath("prelude.lua").read_text(encoding="utf-8")
    return f"{flags}\n{shared}\n{own}"


@cache
def _digest_of(name: str) -> str:
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Script:
    """A script, called by its digest, or by its source if the server does not have it.

    redis-py's own class loads a script on all masters of a cluster, and fails while one of them is down.
    """

    def __init__(self, client: Redis, name: str, direct: DirectConnections | None = None) -> None:
        """Prepare the script `name`. Its calls go over `direct`, or over `client` if `direct` is None."""
        self._client = client
        self._direct = direct
        self._source = source(name)
        self._digest = _digest_of(name)

    async def __call__(
        self, keys: Sequence[str], args: Sequence[Any], only: DirectConnection | None = None
    ) -> Any:
        """Run the script on the server that has the keys.

        Args:
            keys: the keys.
            args: the arguments.
            only: the connection to use, even if it is lost or the keys are elsewhere; None to choose one.

        Raises:
            ResponseError: the server refuses the call, or the script fails; a WRONGTYPE error names the key.
            RedisError: no reply came; the script may have run all the same.
        """
        try:
            return await self._run(keys, args, only)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE Operation"):
                raise await self._wrong_type(keys, error) from error
            raise

    async def _run(self, keys: Sequence[str], args: Sequence[Any], only: DirectConnection | None) -> Any:
        arguments = (len(keys), *keys, *args)
        client = only or self._direct
        if client is None:
            try:
                return await self._client.evalsha(self._digest, *arguments)
            except NoScriptError:
                return await self._client.eval(self._source, *arguments)
        try:
            return await client.execute(("EVALSHA", self._digest, *arguments), keys[0])
        except NoScriptError:
            return await client.execute(("EVAL", self._source, *arguments), keys[0])

    async def _wrong_type(self, keys: Sequence[str], error: ResponseError) -> ResponseError:
        """Ask for the types of the keys; return an error that names the first key of a wrong type.

        Return `error` itself if all types are right. A missing key has the right type.
        """
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.type(key)
        for key, found in zip(keys, await pipeline.execute(), strict=True):
            expected, is_a = type_of(key), found.decode()
            if is_a not in {"none", expected}:
                return ResponseError(f"WRONGTYPE the key {visible(key)} is a {is_a}, not a {expected}")
        return error

    async def load(self, key: str) -> None:
        """Load the script on the server that has a key, or would have it; the key need not exist."""
        client: Any = self._client
        where: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            await client.initialize()  # reads the slot map again, if that is necessary
            (where["target_nodes"],) = await client.get_nodes_from_slot("EXISTS", key)
        await client.execute_command("SCRIPT LOAD", self._source, **where)
