"""Test who measures the group."""

from __future__ import annotations

from collections import Counter

import pytest

from service.observability.metrics.leader import Leader
from service.ports.deployment_figures import GroupFigures
from service.ports.storage import StorageUnavailableError

FIGURES = GroupFigures(1, 2, 3.0, 4.0, 5.0, 6, 7, 0.99, Counter())


class Server:
    """A server that may give the lease, refuse to write it, or be away."""

    def __init__(self) -> None:
        self.gives: bool | None = True
        """True to give the lease, False if another process has it, None to refuse the write."""
        self.is_away = False

    async def acquire(self, ms: int) -> bool:
        """Return whether the lease is given."""
        assert ms > 0
        if self.is_away or self.gives is None:
            raise StorageUnavailableError("OOM")
        return self.gives

    async def release(self) -> None:
        """Do nothing."""

    async def ask(self) -> GroupFigures:
        """Return the figures."""
        if self.is_away:
            raise StorageUnavailableError("away")
        return FIGURES


async def test_one_process_measures() -> None:
    """Export the figures while this process holds the lease only."""
    server = Server()
    leader = Leader(server, server)
    await leader.look()
    assert leader.samples()["redis_memory_used_ratio"] == {(): 0.99}
    server.gives = False
    await leader.look()
    assert leader.samples() == {}


async def test_each_process_measures_a_server_that_refuses_writes() -> None:
    """Otherwise the figures would go missing when the memory is full, and its alert would resolve."""
    server = Server()
    leader = Leader(server, server)
    server.gives = None
    await leader.look()
    assert leader.samples()["redis_memory_used_ratio"] == {(): 0.99}
    server.is_away = True
    with pytest.raises(StorageUnavailableError):
        await leader.look()
