"""What `deltaloom check` looks at, beside the server: a function a question, answered with a finding."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from deltaloom.streams import GROUP, StreamNames
from service.cli.connection import address, connect
from service.cli.errors import CommandError, explanation
from service.cli.output import plural
from service.storage.server import Finding, ask, assess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from service.settings import Settings

OWNERS = {"service": "deltaloom-worker", "handlers": "deltaloom-worker", "deltaloom": "deltaloom"}


async def found(settings: Settings) -> list[Finding]:
    """All findings; those about the server end with the first if there is none."""
    here = [handlers(settings), import_names(metadata.packages_distributions())]
    try:
        async with connect(settings) as client:
            server = await ask(client, address(settings.redis_url))
            return [*assess(server), await group(client, StreamNames(settings.prefix)), *here]
    except CommandError as error:
        return [Finding("server", "fail", str(error)), *here]


async def group(client: Redis, names: StreamNames) -> Finding:
    """How far the workers are."""
    try:
        groups = await client.xinfo_groups(names.deltas)
        mine = next((group for group in groups if group["name"] == GROUP.encode()), None)
        letters = int(await client.xlen(names.dead_letters))
    except ResponseError as error:
        if "no such key" not in str(error):
            return Finding(
                "workers", "fail" if "WRONGTYPE" in str(error) else "warn", f"{names.deltas}: {error}"
            )
        mine, letters = None, 0
    if mine is None:
        return Finding(
            "workers", "warn", f"no worker has read {names.deltas} yet; the first one makes the group"
        )
    lag = "unknown" if mine["lag"] is None else f"{mine['lag']:,}"
    says = f"{plural(mine['consumers'], 'consumer')}, {mine['pending']:,} pending, lag {lag}"
    if letters:
        return Finding(
            "workers", "warn", f"{says}, {plural(letters, 'dead letter')} (deltaloom dead-letters list)"
        )
    return Finding("workers", "ok", says)


def handlers(settings: Settings) -> Finding:
    """Which handlers are on."""
    from service.app import routing_table

    try:
        table = routing_table(settings)
    except ValueError as error:
        told = explanation(error)
        if told is None:
            raise
        return Finding("handlers", "fail", told.lines[0])
    return Finding("handlers", "ok", ", ".join(handler.name for handler in table.handlers))


def import_names(owners: Mapping[str, list[str]]) -> Finding:
    """Whether another distribution has put something into our packages, or its package in place of ours."""
    foreign = {
        name: sorted(set(owners.get(name, ())) - {owner})
        for name, owner in OWNERS.items()
        if set(owners.get(name, ())) - {owner}
    }
    if foreign:
        whose = "; ".join(f"{name} is also of {', '.join(others)}" for name, others in foreign.items())
        return Finding("import names", "warn", f"{whose}: use an environment of its own for deltaloom-worker")
    return Finding("import names", "ok", f"{', '.join(OWNERS)} belong to deltaloom alone")
