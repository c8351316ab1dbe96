"""Remove all keys of a deployment, by their known names.

A key belongs to the deployment `a` if it is `a:` or `a:{<partition>}:`, followed by a name of `service.keys`
or of the contract. So `a:b:deltas` is left to the deployment `a:b`. A prefix could also continue like one of
our names (`a:item`): such a deployment is known by its input stream, and all keys that begin so are left.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

AT_ONCE: Final = 500
"""Keys of one `UNLINK`, and of one page of `SCAN`."""

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
    """The keys of one deployment.

    Args:
        client: client of the server or cluster.
        prefix: prefix of the deployment.
    """

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._start = f"{prefix}:"
        self._nested: set[str] = set()
        """Beginnings of the keys of other deployments whose prefixes look like names of this one."""

    def kind_of(self, key: str) -> str | None:
        """Return the kind of a key of the deployment, such as `state`; None for a key of another one."""
        name = key.removeprefix(self._start)
        if name == key or key.startswith(tuple(self._nested)):
            return None
        found = _NAMES.fullmatch(_HASH_TAG.sub("", name, count=1) if _HASH_TAG.match(name) else name)
        return next(filter(None, found.groups())) if found else None

    async def count(self) -> Counter[str]:
        """Return the number of keys by kind; call this before `remove`, since it finds other deployments."""
        keys = [key async for key in self.keys()]
        for key in keys:
            if key.endswith(_INPUT) and self.kind_of(key) != "deltas":
                await self._leave_if_nested(key)
        return Counter(kind for kind in map(self.kind_of, keys) if kind is not None)

    async def _leave_if_nested(self, key: str) -> None:
        """Leave the keys of another deployment alone, if this key is its input."""
        if await self._client.type(key) == b"stream":
            nested = key.removesuffix(_INPUT[1:])
            self._nested.add(re.sub(r"\{\d{1,4}\}:$", "", nested))

    async def streams(self, suffix: str) -> list[str]:
        """Return the deployment's streams of this kind, such as `deltas`."""
        return sorted([key async for key in self.keys(f"*{suffix}") if self.kind_of(key) == suffix])

    async def leases(self) -> list[str]:
        """Return the leases of running relays."""
        return sorted([key async for key in self.keys("*:lease") if self.kind_of(key) == "relay"])

    async def remove(self) -> int:
        """Remove all keys, some at a time; return their number."""
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
        """Yield keys that begin with the prefix; SCAN may return one twice, and none is missing."""
        pattern = re.sub(r"([\\*?\[\]^-])", r"\\\1", self._start) + rest
        async for key in self._client.scan_iter(match=pattern, count=AT_ONCE):
            yield key.decode("utf-8", "surrogateescape")
