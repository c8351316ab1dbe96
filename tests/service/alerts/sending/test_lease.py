"""Tests of a lease as the process sees it that holds it."""

from __future__ import annotations

import pytest

from service.alerts.sending.lease import Lease
from service.ports.storage import StorageUnavailableError


class Store:
    """A store of leases that may be away."""

    def __init__(self) -> None:
        self.is_free = True
        self.is_away = False
        self.asked_for_ms: list[int] = []
        self.released = 0

    async def hold(self, ms: int) -> bool:
        """Return whether it could be had."""
        self._answer()
        self.asked_for_ms.append(ms)
        return self.is_free

    async def release(self) -> None:
        """Let go of it."""
        self._answer()
        self.released += 1

    def _answer(self) -> None:
        if self.is_away:
            raise StorageUnavailableError("away")


async def test_a_lease_that_was_taken_is_held_until_it_is_released() -> None:
    """A relay would send nothing; or two would send the same alert."""
    store = Store()
    lease = Lease(store, 60)
    assert not lease.held
    assert await lease.take()
    assert store.asked_for_ms == [60_000]
    assert lease.held
    await lease.release()
    assert not lease.held
    assert store.released == 1


async def test_a_lease_is_not_held_while_it_is_being_released() -> None:
    """Redis may take it back and not be able to say so: another relay would send what this one sends."""
    store = Store()
    lease = Lease(store, 60)
    await lease.take()
    store.is_away = True
    with pytest.raises(StorageUnavailableError):
        await lease.release()
    assert not lease.held


async def test_a_lease_that_another_has_is_not_held() -> None:
    """A relay that was away for long would go on sending beside its successor."""
    store = Store()
    lease = Lease(store, 60)
    await lease.take()
    store.is_free = False
    assert not await lease.take()
    assert not lease.held
    store.is_free = True
    await lease.take()
    store.is_away = True
    with pytest.raises(StorageUnavailableError):
        await lease.take()
    assert lease.held, "it was not said that it is lost"


async def test_a_lease_is_held_no_longer_than_it_lasts() -> None:
    """A relay that hangs for a while would not notice that another one sends."""
    lease = Lease(Store(), 0.0)
    assert await lease.take()
    assert not lease.held
