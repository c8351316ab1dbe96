"""Trim outputs by age, but keep them for a group that has yet to acknowledge them, and warn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service import logs

if TYPE_CHECKING:
    from service.storage.group import ConsumerGroup, KeptFor

_BEHIND_SECONDS: Final = 60.0
"""Seconds that a group may be behind before outputs that fill half of the budget are its fault."""

_WARNED_EVERY: Final = 60
"""Trims between two warnings: about an hour, if outputs are trimmed once a minute."""


class KeptOutputs:
    """The outputs of one partition and the group that they wait for.

    Args:
        consumers: the worker's group, which trims.
        group: name of the group of the outputs.
        retention_ms: maximum age of entries that the group has acknowledged.
        budget: bytes of the outputs beyond which the group is not waited for; None for no limit.
    """

    def __init__(self, consumers: ConsumerGroup, group: str, retention_ms: int, budget: int | None) -> None:
        self._consumers = consumers
        self._group = group
        self._retention_ms = retention_ms
        self._budget = budget
        self._trims_until_warning = 0

    async def trim(self) -> str:
        """Trim; return the name of the group that is waited for, or "" if the outputs are over the budget."""
        kept = await self._consumers.trim_for(self._group, self._retention_ms, self._budget)
        self._warn(kept)
        return "" if self._budget is not None and kept.bytes > self._budget else self._group

    def _warn(self, kept: KeptFor) -> None:
        """Log what was lost each time, and at regular times that half of the budget is filled."""
        if kept.lost:
            logs.logger().error(
                "outputs trimmed before their group had them",
                group=kept.group,
                entries=kept.lost,
                total_bytes=kept.bytes,
                budget=self._budget,
            )
        if self._budget is None or kept.bytes <= self._budget / 2 or kept.behind < _BEHIND_SECONDS:
            if self._trims_until_warning:
                logs.logger().info("outputs no longer wait for their group", group=kept.group)
            self._trims_until_warning = 0
            return
        if self._trims_until_warning <= 1:
            logs.logger().error(
                "outputs wait for their group and fill half of their budget",
                group=kept.group,
                behind_seconds=round(kept.behind),
                total_bytes=kept.bytes,
                budget=self._budget,
            )
            self._trims_until_warning = _WARNED_EVERY
        else:
            self._trims_until_warning -= 1
