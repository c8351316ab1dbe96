"""`deltaloom alerts resend`: send undelivered alerts again."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from deltaloom.messages import UndeliveredAlert
    from service.alerts.deciding.policy import LoadedPolicy
    from service.alerts.delivery import Destination, Outcome
    from service.cli.alerts.all_undelivered import AllUndelivered
    from service.storage.undelivered_store import StoredUndelivered

EXAMPLES = examples(
    "deltaloom alerts resend 1763764863123-0",
    "deltaloom alerts resend --all --of old-channel --to on-call",
)

_ID = re.compile(r"(\d+:)?\d+-\d+")


def _undelivered_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not the id of an undelivered alert; the list shows them")
    return text


def run(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID…",
            help="Ids that `deltaloom alerts undelivered` lists.",
            parser=_undelivered_id,
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are stored now.")] = False,
    of: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --all: only of this destination.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Send them to this destination.",
            show_default="the one that did not get it",
        ),
    ] = None,
    config: ConfigFile = DEFAULT,
) -> None:
    """Send undelivered alerts now, once each and with their former ids, and remove the confirmed ones.

    Routes, and how much of the text is sent, follow the present file. Rate limits and digests do not apply. A
    disabled destination gets nothing until `deltaloom alerts enable NAME`.
    """
    from service import logs
    from service.alerts.deciding.policy import load
    from service.cli.connect import read_settings

    if bool(ids) == everything:
        raise typer.BadParameter("name undelivered alerts by their ids, or all of them with --all")
    if ids and of:
        raise typer.BadParameter("--of goes with --all")
    logs.configure(read_settings())  # a setting decides whether log destinations may log texts
    asyncio.run(_resend(ids or [], of, to, load(config, os.environ)))


async def _resend(ids: list[str], of: str | None, to: str | None, loaded: LoadedPolicy) -> None:
    from service.cli.alerts.all_undelivered import connect_undelivered
    from service.cli.command_errors import CommandError
    from service.cli.output import console, note

    sent, failed = 0, 0
    destinations = FileDestinations(loaded)
    try:
        async with connect_undelivered() as alerts:
            async for shown_id, stored in _chosen(alerts, ids, of):
                problem = (
                    await send_again(alerts, destinations, stored.undelivered, to)
                    if stored
                    else "is not there (any more)"
                )
                if problem is None:
                    await alerts.drop(shown_id)
                    sent += 1
                else:
                    note(f"{shown_id}: {problem}")
                    failed += 1
    finally:
        await destinations.aclose()
    console().print(f"{sent:,} delivered")
    if failed:
        raise CommandError(f"{failed:,} not delivered: they are kept")


async def _chosen(
    alerts: AllUndelivered, ids: list[str], of: str | None
) -> AsyncIterator[tuple[str, StoredUndelivered | None]]:
    for shown_id in ids:
        yield shown_id, await alerts.get(shown_id)
    if not ids:
        async for stored in alerts.oldest_first(of):
            yield stored.id, stored


async def send_again(
    alerts: AllUndelivered, destinations: FileDestinations, undelivered: UndeliveredAlert, to: str | None
) -> str | None:
    """Send an undelivered alert; return why it was not delivered, or None."""
    from datetime import UTC, datetime

    from service.alert_parsing import NotAnAlertError, parse_alert
    from service.alerts.delivery import Notification, Verdict

    name = to or undelivered.destination
    try:
        alert = parse_alert(undelivered.alert or "").alert
    except NotAnAlertError:
        return "holds no alert"
    policy = destinations.loaded.policy
    if name not in policy.destinations:
        return f"there is no destination {name} in the file"
    if answer := await alerts.disabled_answer(name):
        return f"{name} is disabled ({answer}): enable it with `deltaloom alerts enable {name}`"
    decision = policy.decide_for(name, alert, datetime.now(UTC))
    if not isinstance(decision, Notification):
        return f"{name} does not get it: {decision.why}"
    outcome: Outcome = await destinations.get(name).deliver(decision)
    return (
        None if outcome.verdict is Verdict.DELIVERED else f"{name}: {outcome.verdict.value}, {outcome.answer}"
    )


class FileDestinations:
    """The destinations of a file, created on first use."""

    def __init__(self, loaded: LoadedPolicy) -> None:
        self.loaded = loaded
        self._created: dict[str, Destination] = {}

    def get(self, name: str) -> Destination:
        """Return a destination, whose name must be in the file."""
        from service.alerts.destinations.registry import create_destination

        if name not in self._created:
            self._created[name] = create_destination(name, self.loaded.destinations[name], os.environ)
        return self._created[name]

    async def aclose(self) -> None:
        """Close all connections."""
        for destination in self._created.values():
            await destination.aclose()
