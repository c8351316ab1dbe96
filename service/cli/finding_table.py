"""The checks of `deltaloom check` beyond the server's own: one function per finding."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from service.cli.command_errors import CommandError, explanation
from service.cli.connect import address, connect
from service.cli.output import plural
from service.cli.relay_findings import relays
from service.cli.worker_findings import workers
from service.keys import LEFT_OUT, Keys
from service.observability.otel_environment import trace_target
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.server import ServerFinding, ask, assess, mib
from service.storage.draining import DrainRequest
from service.storage.state_format import FORMAT, FormatNote, StateFormat, StateFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames
    from service.settings import Settings

_FIELDS_NAMED = 10
"""Maximum number of ignored fields that are named, the most frequent first."""

_ANSWERS_WITHIN = 5.0
"""Maximum seconds for the first answer of the server, since a person waits."""

_SUMMED_PARTITIONS = 64
"""Maximum number of partitions whose streams are measured."""

OWNERS = {"service": "deltaloom-worker", "handlers": "deltaloom-worker", "deltaloom": "deltaloom"}


async def found(settings: Settings, *, read_only: bool = False) -> list[ServerFinding]:
    """Return all findings; if there is no server, one finding about it replaces all that need it.

    Args:
        settings: settings of this process.
        read_only: write nothing, and so skip trying the worker's commands.
    """
    here = [handlers(settings), import_names(metadata.packages_distributions()), *traces(os.environ)]
    try:
        async with connect(settings, _ANSWERS_WITHIN) as client:
            server = await ask(client, address(settings.redis_url))
            return [
                *assess(server),
                *await streams(client, settings.names),
                await state_format(client, settings.names),
                *([] if read_only else [await scripts(client, settings)]),
                *await workers(client, settings.names),
                *await drain(client, settings.names),
                *await relays(client, settings.names),
                await left_out(client, settings.names),
                *here,
            ]
    except CommandError as error:
        return [ServerFinding("server", "fail", str(error)), *here]


async def streams(client: Redis, partitions: Partitions) -> list[ServerFinding]:
    """Report how much of the memory deltaloom's streams take; the rest may be another program's.

    Return no finding if there are too many streams, or the server does not tell.
    """
    names = [
        stream
        for each in partitions.all[:_SUMMED_PARTITIONS]
        for stream in (
            each.deltas,
            each.assembled,
            each.alerts,
            each.deliveries,
            each.dead_letters,
            each.undelivered,
        )
    ]
    if len(partitions.all) > _SUMMED_PARTITIONS:
        return []
    try:
        with unavailable_if_away():
            sizes = await asyncio.gather(*(client.memory_usage(name) for name in names))
    except (StorageUnavailableError, ResponseError):
        return []
    bytes_of = {name: int(size or 0) for name, size in zip(names, sizes, strict=True)}
    largest = max(bytes_of, key=lambda name: bytes_of[name])
    says = f"{mib(sum(bytes_of.values()))} of the memory are deltaloom's streams"
    if bytes_of[largest]:
        says += f", {mib(bytes_of[largest])} of them {largest}"
    return [ServerFinding("streams", "ok", says)]


async def state_format(client: Redis, partitions: Partitions) -> ServerFinding:
    """Check that a worker of this version can read the state of every partition."""
    formats = [StateFormat(client, Keys(names).format) for names in partitions.all]
    read = await asyncio.gather(*(each.read() for each in formats), return_exceptions=True)
    notes = [each for each in read if isinstance(each, FormatNote)]
    for error in read:
        if isinstance(error, StateFormatError):
            return ServerFinding("state format", "fail", str(error))
    for error in read:
        if isinstance(error, ResponseError | SetupError):
            return ServerFinding("state format", "warn", f"unknown: {error}")
        if isinstance(error, BaseException) and not isinstance(error, StorageUnavailableError):
            raise error
    if not notes:
        return ServerFinding("state format", "ok", f"none yet; the first worker notes format {FORMAT}")
    highest = max(notes)
    return ServerFinding("state format", "ok", f"format {highest.version}, written by {highest.written_by}")


async def scripts(client: Redis, settings: Settings) -> ServerFinding:
    """Check that this user may run all commands of a worker."""
    from service.apps.handler_table import routing_table
    from service.apps.rehearsal import rehearse, user_of

    try:
        table = routing_table(settings)
    except ValueError:  # `handlers` reports it
        return ServerFinding("scripts", "warn", "not tried, because of the handlers")
    # Each node of a cluster has rights of its own.
    places = settings.served if settings.address.mode == "cluster" else settings.served[:1]
    tries = (rehearse(client, table, settings, names) for names in places)
    errors = [error for error in await asyncio.gather(*tries, return_exceptions=True) if error is not None]
    if not errors:
        return ServerFinding("scripts", "ok", "this user may do all that a worker does")
    worst = next((each for each in errors if isinstance(each, SetupError)), errors[0])
    if isinstance(worst, SetupError):
        hint = f". This is the user {user_of(settings)}: use --read-only if workers have another one"
        return ServerFinding("scripts", "fail", f"{worst}{hint if worst.state == 'NOPERM' else ''}")
    if isinstance(worst, StorageUnavailableError):
        return ServerFinding("scripts", "warn", f"not tried: {worst}")
    raise worst


async def drain(client: Redis, partitions: Partitions) -> list[ServerFinding]:
    """Check that no request to stop reading is in force; return no finding if there is none."""
    try:
        until = await DrainRequest(client, partitions.all[0]).until()
    except SetupError as error:
        return [ServerFinding("drain", "warn", f"unknown: {error}")]
    except StorageUnavailableError:
        return []
    if until is None:
        return []
    return [ServerFinding("drain", "warn", f"workers do not read until {until}: deltaloom drain --resume")]


async def left_out(client: Redis, partitions: Partitions) -> ServerFinding:
    """Check whether fields of events were ignored as unusable, in all partitions together."""
    found: Counter[str] = Counter()
    for each in await asyncio.gather(*(_counts(client, names) for names in partitions.all)):
        if isinstance(each, ServerFinding):
            return each
        for name, count in each.items():
            if name.startswith(LEFT_OUT.encode()):
                found[name.decode().removeprefix(LEFT_OUT).replace(":", " ", 1)] += int(count)
    if not found:
        return ServerFinding("left out", "ok", "no field of an event")
    named = ", ".join(f"{name} ({count:,})" for name, count in found.most_common(_FIELDS_NAMED))
    more = f", and {plural(len(found) - _FIELDS_NAMED, 'other')}" if len(found) > _FIELDS_NAMED else ""
    return ServerFinding("left out", "warn", f"fields of events that cannot be used: {named}{more}")


async def _counts(client: Redis, names: StreamNames) -> Mapping[bytes, bytes] | ServerFinding:
    """Return the counts of a partition; empty if its server does not answer."""
    try:
        with unavailable_if_away():
            counts: Any = await client.hgetall(Keys(names).counts)
    except SetupError as error:
        return ServerFinding("left out", "warn", f"unknown: {error}")
    except StorageUnavailableError:
        return {}
    return dict(counts)


def handlers(settings: Settings) -> ServerFinding:
    """Check the setting of handlers, and list the enabled ones."""
    from service.apps.handler_table import routing_table

    try:
        table = routing_table(settings)
    except ValueError as error:
        explained = explanation(error)
        if explained is None:
            raise
        return ServerFinding("handlers", "fail", explained.lines[0])
    return ServerFinding("handlers", "ok", ", ".join(handler.name for handler in table.handlers))


def traces(environment: Mapping[str, str]) -> list[ServerFinding]:
    """Check that traces can be sent, if the environment asks for them; nothing is sent."""
    target = trace_target(environment)
    if target is None:
        return []
    if target.problem is not None:
        return [ServerFinding("traces", "warn", f"off: {target.problem}")]
    return [ServerFinding("traces", "ok", f"go to {target.shown}")]


def import_names(owners: Mapping[str, list[str]]) -> ServerFinding:
    """Check that no other distribution has installed files into, or in place of, deltaloom's packages."""
    foreign = {
        name: sorted(set(owners.get(name, ())) - {owner})
        for name, owner in OWNERS.items()
        if set(owners.get(name, ())) - {owner}
    }
    if foreign:
        whose = "; ".join(f"{name} is also of {', '.join(others)}" for name, others in foreign.items())
        return ServerFinding(
            "import names", "warn", f"{whose}: use an environment of its own for deltaloom-worker"
        )
    return ServerFinding("import names", "ok", f"{', '.join(OWNERS)} belong to deltaloom alone")
