"""Test the findings about a server, from its INFO and CONFIG."""

from __future__ import annotations

from typing import Any

import pytest

from service.storage.client.server import Server, assess, eviction, memory, persistence, reached

ROOMY = {"used_memory": 1 << 20, "maxmemory": 1 << 30, "maxmemory_policy": "noeviction"}


def server(config: dict[str, str] | None = None, **info: Any) -> Server:
    """Return a server with this INFO and CONFIG."""
    return Server("redis://host", info, config or {})


@pytest.mark.parametrize(
    ("info", "state", "says"),
    [
        ({"redis_version": "8.2.3", "role": "master"}, "ok", "Redis 8.2.3"),
        ({"redis_version": "7.0.15", "role": "master"}, "ok", "Redis 7.0.15"),
        ({"redis_version": "6.2.14", "role": "master"}, "fail", "too old"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok", "Valkey 9.1.2"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "fail", "Valkey 7.2 or later"),
        ({"redis_version": "8.0.0", "role": "slave"}, "fail", "replica"),
        ({"redis_version": "255.255.255"}, "ok", "255"),
        ({}, "ok", "is not permitted"),
    ],
)
def test_reached(info: dict[str, Any], state: str, says: str) -> None:
    """Check version and role. Otherwise the problem would only show when the worker starts."""
    finding = reached(server(**info))
    assert finding.state == state
    assert says in finding.says


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({"maxmemory_policy": "noeviction"}, "ok"),
        ({"maxmemory_policy": "allkeys-lru"}, "warn"),
        ({}, "warn"),
    ],
)
def test_eviction(info: dict[str, Any], state: str) -> None:
    """Warn of an eviction policy that could evict the stream and its groups."""
    assert eviction(server(**info)).state == state


@pytest.mark.parametrize(
    ("used", "limit", "policy", "state"),
    [
        (50, 0, "noeviction", "ok"),
        (89, 100, "noeviction", "ok"),
        (97, 100, "noeviction", "warn"),
        (100, 100, "noeviction", "fail"),
        (100, 100, "allkeys-lru", "warn"),
    ],
)
def test_memory(used: int, limit: int, policy: str, state: str) -> None:
    """Warn before the memory is full, and fail when the server refuses writes."""
    found = memory(server(used_memory=used, maxmemory=limit, maxmemory_policy=policy))
    assert found.state == state
    assert memory(server(used_memory=99, total_system_memory=100)).state == "warn"
    assert memory(server(maxmemory_policy=policy)).state == "warn"


@pytest.mark.parametrize(
    ("info", "config", "state", "says"),
    [
        ({"aof_enabled": 1}, {"appendfsync": "always"}, "ok", "nothing acknowledged is lost"),
        ({"aof_enabled": 1}, {"appendfsync": "everysec"}, "ok", "a second"),
        ({"aof_enabled": 1}, {"appendfsync": "no"}, "warn", "30 s"),
        ({"aof_enabled": 1}, {}, "ok", "is not permitted"),
        ({"aof_enabled": 0}, {"save": "3600 1"}, "warn", "snapshots"),
        ({"aof_enabled": 0}, {"save": ""}, "warn", "a restart loses everything"),
        ({"aof_enabled": 0}, {}, "warn", "no append-only file"),
        ({}, {}, "warn", "unknown"),
    ],
)
def test_persistence(info: dict[str, Any], config: dict[str, str], state: str, says: str) -> None:
    """Report how much data a crash of the server can lose."""
    finding = persistence(server(config, **info))
    assert finding.state == state
    assert says in finding.says


def test_a_master_that_is_away() -> None:
    """Report an unreachable master, and leave it out of the other findings."""
    well = {"redis_version": "8.0.0", "role": "master", **ROOMY, "aof_enabled": 1}
    there = server({"appendfsync": "always"}, **well, connected_slaves=1)
    found = {each.what: each for each in assess([there, Server("gone:6379", {}, {}, away=True)])}
    assert found["server"].state == "warn"
    assert found["server"].says.startswith("gone:6379 does not answer")
    assert [found[what].state for what in ("eviction", "durability", "failover")] == ["ok", "ok", "ok"]


def test_the_worst_of_several_masters_is_reported() -> None:
    """Report the worst master. Otherwise a cluster with one volatile master would look safe."""
    well = {"redis_version": "8.0.0", "role": "master", **ROOMY, "aof_enabled": 1}
    servers = [
        server({"appendfsync": "always"}, **well, connected_slaves=1),
        server({"save": ""}, **{**well, "aof_enabled": 0}, connected_slaves=0),
    ]
    found = {finding.what: finding for finding in assess(servers)}
    assert [finding.state for finding in found.values()] == ["ok", "ok", "ok", "warn", "warn"]
    assert found["durability"].says.startswith("memory only")
    assert found["durability"].says.endswith("(1 of 2 masters)")
    assert "no replica" in found["failover"].says
    assert [finding.what for finding in assess(servers[:1])] == ["server", "memory", "eviction", "durability"]
