"""A client that cannot write by a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis


def read_only(client: Redis) -> Redis:
    """Make a client call scripts by EVALSHA_RO and EVAL_RO, and return it.

    The server then refuses a script's writes, and lets a user call it who may only read its keys.
    """
    client.evalsha, client.eval = client.evalsha_ro, client.eval_ro  # type: ignore[method-assign] # same arguments
    return client
