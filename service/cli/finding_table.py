"""The checks of `deltaloom check` beyond the server's own: one function per finding."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from redis.exceptions import ResponseError

from deltaloom.streams import GROUP
from service.cli.command_errors import CommandError, explanation
from service.cli.connect import address, connect
from service.cli.output import plural
from service.keys import LEFT_OUT, Keys
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away
from service.storage.client.server import ServerFinding, State, ask, assess
from service.storage.state_format import FORMAT, FormatNote, StateFormat, StateFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames
    from service.settings import Settings

_FIELDS_NAMED = 10
"""Maximum number of ignored fields that are named, the most frequent first."""

OWNERS = {"service": "deltaloom-worker", "handlers": "deltaloom-worker", "deltaloom": "deltaloom"}


async def found(settings: Settings, *, read_only: bool = False) -> list[ServerFinding]:
    """Return all findings; if there is no server, one finding about it replaces all that need it.

    Args:
        settings: settings of this process.
        read_only: write nothing, and so skip trying the worker's commands.
    """
    here = [handlers(settings), import_names(metadata.packages_distributions())]
    try:
        async with connect(settings) as client:
            server = await ask(client, address(settings.redis_url))
            return [
                *assess(server),
                await state_format(client, settings.names),
                *([] if read_only else [await scripts(client, settings)]),
                await workers(client, settings.names),
                await left_out(client, settings.names),
                *here,
            ]
    except CommandError as error:
        return [ServerFinding("server", "fail", str(error)), *here]


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
    from service.apps.rehearsal import rehearse
    from service.apps.worker_app import routing_table

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
        return ServerFinding("scripts", "fail", str(worst))
    if isinstance(worst, StorageUnavailableError):
        return ServerFinding("scripts", "warn", f"not tried: {worst}")
    raise worst


class _Progress(NamedTuple):
    """The progress of the workers in one partition."""

    consumers: int
    pending: int
    lag: int | None
    letters: int


async def workers(client: Redis, partitions: Partitions) -> ServerFinding:
    """Check the progress of the workers in all partitions together."""
    # Query concurrently: if a master is unavailable, each of its partitions takes some time to fail.
    found = await asyncio.gather(*(_progress(client, names) for names in partitions.all))
    for each in found:
        if isinstance(each, ServerFinding):
            return each
    away = found.count("away")
    if away == len(found):
        return ServerFinding("workers", "fail", "no partition can be served: their servers do not answer")
    unread = [names.deltas for names, each in zip(partitions.all, found, strict=True) if each == "unread"]
    if unread:
        more = f" (nor {plural(len(unread) - 1, 'other partition')})" if unread[1:] else ""
        return ServerFinding(
            "workers", "warn", f"no worker has read {unread[0]}{more} yet; the first one makes the group"
        )
    return _workers_finding([each for each in found if isinstance(each, _Progress)], away)


async def _progress(
    client: Redis, names: StreamNames
) -> _Progress | ServerFinding | Literal["unread", "away"]:
    """Return the progress in a partition: `unread` if no worker has read it, `away` if it is unavailable."""
    try:
        with unavailable_if_away():
            groups = await client.xinfo_groups(names.deltas)
            letters = int(await client.xlen(names.dead_letters))
    except SetupError as error:
        state: State = "fail" if error.state == "WRONGTYPE" else "warn"
        return ServerFinding("workers", state, f"{names.deltas}: {error}")
    except StorageUnavailableError:
        return "away"
    except ResponseError as error:
        if "no such key" in str(error):
            return "unread"
        return ServerFinding("workers", "warn", f"{names.deltas}: {error}")
    mine = next((group for group in groups if group["name"] == GROUP.encode()), None)
    return _Progress(mine["consumers"], mine["pending"], mine["lag"], letters) if mine else "unread"


def _workers_finding(progress: list[_Progress], away: int) -> ServerFinding:
    letters = sum(each.letters for each in progress)
    lags = [each.lag for each in progress]
    lag = "unknown" if None in lags else f"{sum(filter(None, lags)):,}"
    # A worker is one consumer in each partition that it serves.
    consumers = plural(sum(each.consumers for each in progress), "consumer")
    where = f" in {len(progress)} partitions" if progress[1:] else ""
    says = f"{consumers}{where}, {sum(each.pending for each in progress):,} pending, lag {lag}"
    if away:
        waiting = f"{plural(away, 'partition')} whose server does not answer"
        return ServerFinding("workers", "warn", f"{says}, {waiting}")
    deserted = sum(not each.consumers for each in progress)
    if deserted and progress[1:]:
        return ServerFinding("workers", "warn", f"{says}, {plural(deserted, 'partition')} without a consumer")
    if letters:
        return ServerFinding(
            "workers", "warn", f"{says}, {plural(letters, 'dead letter')} (deltaloom dead-letters list)"
        )
    return ServerFinding("workers", "ok", says)


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
    from service.apps.worker_app import routing_table

    try:
        table = routing_table(settings)
    except ValueError as error:
        explained = explanation(error)
        if explained is None:
            raise
        return ServerFinding("handlers", "fail", explained.lines[0])
    return ServerFinding("handlers", "ok", ", ".join(handler.name for handler in table.handlers))


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
