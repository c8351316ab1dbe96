"""Test a lease as seen by the process that holds it."""

from __future__ import annotations

import pytest

from service.alerts.sending.lease import Lease
from service.ports.storage import StorageUnavailableError


class Store:
    """A store of leases that can be unavailable."""

    def __init__(self) -> None:
        self.is_free = True
        self.is_away = False
        self.asked_for_ms: list[int] = []
        self.released = 0

    async def acquire(self, ms: int) -> bool:
        """Record the request and return whether the lease is free."""
        self._answer()
        self.asked_for_ms.append(ms)
        return self.is_free

    async def release(self) -> None:
        """Record the release."""
        self._answer()
        self.released += 1

    def _answer(self) -> None:
        if self.is_away:
            raise StorageUnavailableError("away")


async def test_a_lease_that_was_taken_is_held_until_it_is_released() -> None:
    """Hold an acquired lease until it is released."""
    store = Store()
    lease = Lease(store, 60)
    assert not lease.held
    assert await lease.acquire()
    assert store.asked_for_ms == [60_000]
    assert lease.held
    await lease.release()
    assert not lease.held
    assert store.released == 1


async def test_a_lease_is_not_held_while_it_is_being_released() -> None:
    """Stop holding before the release, since Redis may apply it and lose the reply."""
    store = Store()
    lease = Lease(store, 60)
    await lease.acquire()
    store.is_away = True
    with pytest.raises(StorageUnavailableError):
        await lease.release()
    assert not lease.held


async def test_a_lease_that_another_has_is_not_held() -> None:
    """Stop holding when another process has the lease, but not when the store is unavailable."""
    store = Store()
    lease = Lease(store, 60)
    await lease.acquire()
    store.is_free = False
    assert not await lease.acquire()
    assert not lease.held
    store.is_free = True
    await lease.acquire()
    store.is_away = True
    with pytest.raises(StorageUnavailableError):
        await lease.acquire()
    assert lease.held, "an unavailable store does not end the lease"


async def test_a_lease_is_held_no_longer_than_it_lasts() -> None:
    """Stop holding when the lease expires, since another relay may send then."""
    lease = Lease(Store(), 0.0)
    assert await lease.acquire()
    assert not lease.held
