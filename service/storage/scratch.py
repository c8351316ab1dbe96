"""Scratch keys for a rehearsal: they have their own prefix, and are deleted at its end.

If a crash prevents that, most of them expire within seconds.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from handlers.core.identity import StreamKey
from service.keys import Keys, type_of
from service.storage import scripts
from service.storage.buckets import baseline_of, window_of
from service.storage.client.availability import unavailable_if_away
from service.storage.server_clock import ServerClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames
    from service.settings import Settings

TTL = 10.0
"""TTL of most scratch keys in seconds."""

_NOBODY = StreamKey("response", "nobody")


def scratch_settings(settings: Settings, names: StreamNames) -> Settings:
    """Return settings for scratch keys: with a prefix below the real one, so that the same ACL rules apply.

    The prefix contains a digest of the consumer's name, so that workers have different ones. The settings
    serve only the partition of `names`, so that the scratch keys are on its server. They have short TTLs and
    spike times, and wait for no replica and no disk.
    """
    token = blake2b(settings.consumer.encode(), digest_size=6).hexdigest()
    times = {"state_ttl": TTL, "marker_ttl": TTL, "item_ttl": TTL, "spike_window": 1.0, "spike_baseline": 2.0}
    place = {"serve_partitions": str(names.partition)} if names.partition is not None else {}
    at_once = {"wait_aof": False, "wait_replicas": 0}
    prefix = f"{settings.prefix}:scratch:{token}"
    return settings.model_copy(update={"prefix": prefix, **times, **place, **at_once})


@asynccontextmanager
async def scratch_keys(client: Redis, settings: Settings) -> AsyncIterator[Keys]:
    """Create scratch keys of the first served partition, yield all key names, and delete the scratch keys.

    Only the keys for which the worker sets no TTL are created, each with one value and a TTL; an earlier
    value is deleted. The worker creates the others. At the end, also after an error, all are deleted, except
    states, logs, markers and items, which expire.

    Raises:
        SetupError: the user lacks a right, or the server lacks a command.
        StorageUnavailableError: the server is unavailable.
    """
    keys = Keys(settings.served[0])
    kept = [keys.names.deltas, *keys.outputs]
    kept += [keys.counts, keys.counted_types, keys.counted_fields, keys.open, keys.waiting, keys.owners]
    prepare = scripts.Script(client, "scratch")
    with unavailable_if_away():
        await prepare(keys=kept, args=[round(TTL * 1000), str(_NOBODY), *map(type_of, kept)])
    began_ms = ServerClock().now_ms
    try:
        yield keys
    finally:
        now_ms = ServerClock().now_ms
        series = (window_of(settings), baseline_of(settings))
        times = [(each, ms) for each in series for ms in (began_ms, now_ms)]
        buckets = {key for each, ms in times for key in each.keys(keys, ms) + each.keys_of_names(keys, ms)}
        with unavailable_if_away():
            await client.delete(*kept, *buckets, keys.kind_retention, *_of_spikes(keys))


def _of_spikes(keys: Keys) -> tuple[str, ...]:
    return keys.spikes, keys.provider_spikes, keys.spike_turn
