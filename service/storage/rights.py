"""The commands that a worker needs, and which of them its user may not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.storage import scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

OF_WORKERS: Final = {
    "script|load": "SCRIPT LOAD s",
    "info": "INFO",
    "time": "TIME",
    "type": "TYPE {key}",
    "xadd": "XADD {key} * f v",
    "xreadgroup": "XREADGROUP GROUP g c STREAMS {key} >",
    "xack": "XACK {key} g 0-1",
    "xclaim": "XCLAIM {key} g c 0 0-1",
    "xautoclaim": "XAUTOCLAIM {key} g c 0 0",
    "xpending": "XPENDING {key} g",
    "xrange": "XRANGE {key} - +",
    "xtrim": "XTRIM {key} MAXLEN 1",
    "xdel": "XDEL {key} 0-1",
    "xlen": "XLEN {key}",
    "xgroup|create": "XGROUP CREATE {key} g 0",
    "xgroup|delconsumer": "XGROUP DELCONSUMER {key} g c",
    "xinfo|groups": "XINFO GROUPS {key}",
    "xinfo|consumers": "XINFO CONSUMERS {key} g",
    "memory|usage": "MEMORY USAGE {key}",
    "get": "GET {key}",
    "mget": "MGET {key}",
    "set": "SET {key} v",
    "append": "APPEND {key} v",
    "getrange": "GETRANGE {key} 0 1",
    "strlen": "STRLEN {key}",
    "exists": "EXISTS {key}",
    "del": "DEL {key}",
    "expire": "EXPIRE {key} 1",
    "pexpire": "PEXPIRE {key} 1",
    "pexpireat": "PEXPIREAT {key} 1",
    "hget": "HGET {key} f",
    "hmget": "HMGET {key} f",
    "hgetall": "HGETALL {key}",
    "hkeys": "HKEYS {key}",
    "hlen": "HLEN {key}",
    "hexists": "HEXISTS {key} f",
    "hset": "HSET {key} f v",
    "hsetnx": "HSETNX {key} f v",
    "hincrby": "HINCRBY {key} f 1",
    "hdel": "HDEL {key} f",
    "zadd": "ZADD {key} 1 m",
    "zincrby": "ZINCRBY {key} 1 m",
    "zcard": "ZCARD {key}",
    "zscore": "ZSCORE {key} m",
    "zmscore": "ZMSCORE {key} m",
    "zrange": "ZRANGE {key} 0 1",
    "zrangebyscore": "ZRANGEBYSCORE {key} 0 1",
    "zrem": "ZREM {key} m",
    "zpopmin": "ZPOPMIN {key}",
}
"""The commands that deploy/users.acl grants to the user `worker`, by their names in ACLs.

Each has an example that is checked but never run; in it, `{key}` stands for a key.

The commands that run scripts are left out: without the right to them, the script that checks the rights could
not run either.
"""


async def missing_rights(client: Redis, key: str) -> list[str]:
    """Return the names in `OF_WORKERS` of commands that the user of this client may not run with a key.

    The commands are not run. A command that the server does not know is left out.

    Raises:
        RedisError: the check itself fails, for example because the user may not run scripts.
    """
    refused: list[int] = await scripts.Script(client, "rights")(keys=[key], args=[*OF_WORKERS.values()])
    names = list(OF_WORKERS)
    return [names[number - 1] for number in refused]
