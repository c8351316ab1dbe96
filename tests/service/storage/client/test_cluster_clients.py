"""Test the clients of a cluster where they differ from redis-py's, without a cluster."""

from __future__ import annotations

import pytest
from redis.exceptions import SlotNotCoveredError

from service.storage.client.cluster import Cluster


async def test_a_slot_without_a_master_is_reported_and_the_map_read_again() -> None:
    """Raise redis-py's own error for such a slot, which is retried, and not a KeyError, which is not."""
    cluster = Cluster(host="127.0.0.1", port=1)
    cluster._initialize = False  # noqa: SLF001 - as after the first command
    try:
        with pytest.raises(SlotNotCoveredError):
            await cluster.get_nodes_from_slot("XREAD", b"STREAMS", "key", "0")
        assert cluster._initialize  # noqa: SLF001 - the next attempt reads the map
    finally:
        cluster._initialize = True  # noqa: SLF001 - it has no connection to close
