"""Remove all keys of a deployment, by their known names.

A key belongs to the deployment `a` if it is `a:` or `a:{<partition>}:`, followed by a name of `service.keys`
or of the contract. So `a:b:deltas` belongs to the deployment `a:b`. Another deployment's prefix may even look
like one of these names, as `a:item` does. Such a nested deployment is found by its input stream
`a:item:deltas`, and all keys that begin with its prefix are left to it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

AT_ONCE: Final = 500
"""Maximum keys of one `UNLINK`, and approximate number of keys that one `SCAN` examines."""

_NAMES: Final = re.compile(
    r"(?P<kind>deltas|assembled|alerts|deliveries|dead-letters|undelivered|open|waiting|owners|counts"
    r"|counted-types|counted-fields|format|kind-retention|spikes|provider-spikes|spike-turn|gone|draining)"
    r"|(?P<response>state|log):(?:response|item):.*"
    r"|(?P<item>item):.*:\d+"
    r"|(?P<marker>done):[A-Za-z0-9_-]{20}"
    r"|(?P<bucket>rates|rate-names):\d+:\d+"
    r"|(?P<relay>relay):.+:(?:lease|digests)"
    r"|(?P<figures>figures):lease"
    r"|(?P<scratch>scratch):[0-9a-f]{12}:.*",
    re.DOTALL,
)
_HASH_TAG: Final = re.compile(r"\{\d{1,4}\}:")
_INPUT: Final = ":deltas"


class Removal:
    """Finds and removes the keys of one deployment.

    Args:
        client: client of the server or cluster.
        prefix: prefix of the deployment.
    """

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._start = f"{prefix}:"
        self._nested: set[str] = set()
        """Beginnings of the keys of nested deployments, which `count` finds."""

    def kind_of(self, key: str) -> str | None:
        """Return the kind of a key, such as `state`; None if the key does not belong to the deployment.

        Before `count`, a key of a nested deployment may be taken for one of this deployment.
        """
        name = key.removeprefix(self._start)
        if name == key or key.startswith(tuple(self._nested)):
            return None
        found = _NAMES.fullmatch(_HASH_TAG.sub("", name, count=1) if _HASH_TAG.match(name) else name)
        return next(filter(None, found.groups())) if found else None

    async def count(self) -> Counter[str]:
        """Find nested deployments; return the number of this deployment's keys by kind.

        Call `count` before any other method. Without it, the others may treat keys of nested deployments as
        their own, and `remove` deletes them. A key that SCAN returns twice is counted twice.
        """
        keys = [key async for key in self.keys()]
        for key in keys:
            if key.endswith(_INPUT) and self.kind_of(key) != "deltas":
                await self._leave_if_nested(key)
        return Counter(kind for kind in map(self.kind_of, keys) if kind is not None)

    async def _leave_if_nested(self, key: str) -> None:
        """Record the nested deployment whose input stream is `key`; do nothing if `key` is no stream."""
        if await self._client.type(key) == b"stream":
            nested = key.removesuffix(_INPUT[1:])
            self._nested.add(re.sub(r"\{\d{1,4}\}:$", "", nested))

    async def streams(self, suffix: str) -> list[str]:
        """Return the sorted keys of the deployment's streams of the kind `suffix`, such as `deltas`.

        A key that SCAN returns twice is listed twice.
        """
        return sorted([key async for key in self.keys(f"*{suffix}") if self.kind_of(key) == suffix])

    async def leases(self) -> list[str]:
        """Return the sorted keys of the leases that relays hold now.

        A key that SCAN returns twice is listed twice.
        """
        return sorted([key async for key in self.keys("*:lease") if self.kind_of(key) == "relay"])

    async def remove(self) -> int:
        """Remove all keys of the deployment, at most `AT_ONCE` at a time; return how many were removed.

        Call `count` first: otherwise keys of nested deployments are removed too. Keys with names that are not
        of deltaloom, and keys that are created during the call, may remain.
        """
        removed, some = 0, list[str]()
        async for key in self.keys():
            if self.kind_of(key) is not None:
                some.append(key)
            if len(some) == AT_ONCE:
                removed += await self._unlink(some)
                some = []
        return removed + await self._unlink(some)

    async def _unlink(self, keys: Sequence[str]) -> int:
        names = [key.encode("utf-8", "surrogateescape") for key in keys]
        return int(await self._client.unlink(*names)) if names else 0

    async def keys(self, rest: str = "*") -> AsyncIterator[str]:
        """Yield all keys that begin with the prefix, those of nested deployments too; a key may come twice.

        `rest` is a pattern of SCAN for the rest of the key, after the prefix and its colon.
        """
        pattern = re.sub(r"([\\*?\[\]^-])", r"\\\1", self._start) + rest
        async for key in self._client.scan_iter(match=pattern, count=AT_ONCE):
            yield key.decode("utf-8", "surrogateescape")
