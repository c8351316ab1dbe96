"""`deltaloom dead-letters`: list, show, replay or drop entries that could not be handled."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.table import Table

    from deltaloom.messages import KnownDeadLetterReason
    from service.cli.all_letters import AllLetters
    from service.storage.letter_store import StoredLetter

EXAMPLES = examples(
    "deltaloom dead-letters list",
    "deltaloom dead-letters show 1763764863123-0",
    "deltaloom dead-letters replay --all",
)
LIST_EXAMPLES = examples(
    "deltaloom dead-letters list",
    "deltaloom dead-letters list --reason invalid_event --json",
)
SHOW_EXAMPLES = examples("deltaloom dead-letters show 1763764863123-0")
REPLAY_EXAMPLES = examples(
    "deltaloom dead-letters replay 1763764863123-0", "deltaloom dead-letters replay --all"
)
DROP_EXAMPLES = examples(
    "deltaloom dead-letters drop 1763764863123-0", "deltaloom dead-letters drop --all --yes"
)

_AT_ONCE = 500

REASONS: tuple[KnownDeadLetterReason, ...] = (
    "malformed_json",
    "invalid_event",
    "oversized",
    "handler_error",
    "max_deliveries",
)
"""Reasons of dead letters, repeated from the library, so that `--help` need not import that."""

_ID = re.compile(r"(\d+:)?\d+-\d+")
"""Pattern of an entry id, with its partition in front if there are several."""


def _letter_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is not the id of a dead letter; the list shows them, like 1763764863123-0"
        )
    return text


def _reason(text: str) -> str:
    if text not in REASONS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(REASONS)}")
    return text


_Id = Annotated[
    str, typer.Argument(metavar="ID", help="Id from the list.", parser=_letter_id, show_default=False)
]
_Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID…", help="Id from the list.", parser=_letter_id, show_default=False),
]
_Reason = Annotated[
    str | None,
    typer.Option(
        metavar="REASON",
        help=f"Only those of this reason: {', '.join(REASONS)}.",
        parser=_reason,
        show_default=False,
    ),
]
_All = Annotated[bool, typer.Option("--all", help="All present ones.")]


def list_(
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List dead letters, the newest first."""
    asyncio.run(_list(reason, limit, as_json=json))


def show(
    letter: _Id, json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show a dead letter with its original entry, which may contain users' and models' texts."""
    asyncio.run(_show(letter, as_json=json))


def replay(letters: _Ids = None, everything: _All = False, reason: _Reason = None) -> None:
    """Put original entries back on the input, each once, and remove their letters."""
    _choose(letters, everything=everything, reason=reason)
    asyncio.run(_replay(letters or [], reason))


def drop(
    letters: _Ids = None,
    everything: _All = False,
    reason: _Reason = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good."""
    _choose(letters, everything=everything, reason=reason)
    if everything and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("without a terminal to ask on, --all needs --yes too")
        typer.confirm(
            "Remove all dead letters" + (f" with the reason {reason}?" if reason else "?"), abort=True
        )
    asyncio.run(_drop(letters or [], reason))


def _choose(letters: list[str] | None, *, everything: bool, reason: str | None) -> None:
    if bool(letters) == everything:
        raise typer.BadParameter("name dead letters by their ids, or all of them with --all")
    if letters and reason:
        raise typer.BadParameter("--reason goes with --all")


async def _list(reason: str | None, limit: int, *, as_json: bool) -> None:
    from service.cli.output import console, plural, print_table, write_json

    chosen: list[StoredLetter] = []
    async with _connected() as letters:
        total = await letters.count()
        async for stored in letters.newest_first():
            if reason in (None, stored.letter.reason):
                chosen.append(stored)
            if len(chosen) == limit:
                break
    if as_json:
        for stored in chosen:
            write_json(_json(stored))
        return
    target = console()
    if chosen:
        print_table(target, _table(chosen))
    which = f" with the reason {reason}" if reason else ""
    target.print(f"{len(chosen):,} of {plural(total, 'dead letter')}{which}" if total else "no dead letters")


async def _show(letter_id: str, *, as_json: bool) -> None:
    from service.cli.entries import entry_in_full
    from service.cli.output import console, print_table, write_json

    async with _connected() as letters:
        stored = await letters.get(letter_id)
    if stored is None:
        raise _gone([letter_id])
    if as_json:
        write_json(_json(stored))
        return
    target = console()
    print_table(target, _facts(stored))
    target.print(entry_in_full(target, stored.letter.entry))


async def _replay(letter_ids: list[str], reason: str | None) -> None:
    from service.cli.command_errors import CommandError
    from service.cli.output import console, note, plural

    replayed, gone, stuck = 0, list[str](), 0
    target = console()
    async with _connected() as letters:
        async for letter_id, stored in _chosen(letters, letter_ids, reason):
            try:
                new = None if stored is None else await _put_back(letters, stored)
            except CommandError as error:
                note(str(error))
                stuck += 1
                continue
            if new is None:
                gone.append(letter_id)
                continue
            replayed += 1
            if letter_ids:
                target.print(f"{letter_id} is back on the input as {new}")
    if not letter_ids:
        target.print(f"{replayed:,} back on the input")
    if stuck:
        raise CommandError(f"{plural(stuck, 'dead letter')} cannot be put back (show has the entry)")
    if letter_ids and gone:
        raise _gone(gone)


async def _put_back(letters: AllLetters, stored: StoredLetter) -> str | None:
    """Replay a letter; return the new entry's id, or None if the letter is gone.

    Raises:
        CommandError: the original entry cannot be written again.
    """
    from service.cli.command_errors import CommandError
    from service.field_json import fields_of
    from service.storage.foreign import FOREIGN, WHAT_IT_IS
    from service.storage.letter_store import CannotReplayError

    if stored.letter.reason == FOREIGN:
        raise CommandError(f"{stored.id} cannot be put back: {WHAT_IT_IS}")
    if size := stored.letter.entry_bytes:
        raise CommandError(
            f"{stored.id} cannot be put back: its entry had {size:,} bytes, and only the first are kept; "
            "publish it again, in smaller entries"
        )
    try:
        fields = fields_of(stored.letter.entry)
    except ValueError:
        raise CommandError(f"{stored.id} cannot be put back: its entry cannot be read") from None
    try:
        return await letters.replay(stored.id, fields)
    except CannotReplayError as error:
        raise CommandError(f"{stored.id} cannot be put back: {error}") from None


async def _drop(letter_ids: list[str], reason: str | None) -> None:
    from service.cli.output import console

    dropped, gone, at_once = 0, [], list[str]()
    async with _connected() as letters:
        async for letter_id, stored in _chosen(letters, letter_ids, reason):
            if stored is None:
                gone.append(letter_id)
                continue
            at_once.append(letter_id)
            if len(at_once) == _AT_ONCE:
                dropped += await letters.drop(at_once)
                at_once.clear()
        dropped += await letters.drop(at_once)
    console().print(f"{dropped:,} removed")
    if gone:
        raise _gone(gone)


async def _chosen(
    letters: AllLetters, letter_ids: list[str], reason: str | None
) -> AsyncIterator[tuple[str, StoredLetter | None]]:
    """Yield the letters with these ids, None for a missing one; without ids, yield all present letters."""
    if letter_ids:
        for letter_id in letter_ids:
            yield letter_id, await letters.get(letter_id)
        return
    async for stored in letters.oldest_first():
        if reason in (None, stored.letter.reason):
            yield stored.id, stored


@asynccontextmanager
async def _connected() -> AsyncIterator[AllLetters]:
    from service.cli.all_letters import AllLetters
    from service.cli.connect import connect, read_settings

    settings = read_settings()
    async with connect(settings) as client:
        yield AllLetters(client, settings.names)


def _gone(letter_ids: list[str]) -> Exception:
    from service.cli.command_errors import CommandError

    return CommandError(f"no such dead letter (any more): {', '.join(letter_ids)}")


def _json(stored: StoredLetter) -> str:
    import json

    return json.dumps({"id": stored.id, **stored.letter.model_dump(mode="json")}, ensure_ascii=False)


def _table(chosen: list[StoredLetter]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from service.visible import visible

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", no_wrap=True)
    table.add_column("failed", no_wrap=True)
    table.add_column("reason", no_wrap=True, style="red")
    table.add_column("error")
    for stored in chosen:
        letter = stored.letter
        failed = letter.failed_at.astimezone().strftime("%m-%d %H:%M")
        table.add_row(stored.id, failed, visible(letter.reason), Text(visible(letter.error)))
    return table


def _facts(stored: StoredLetter) -> Table:
    from rich.table import Table
    from rich.text import Text

    from service.visible import visible

    letter = stored.letter
    size = letter.entry_bytes
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in (
        ("id", stored.id),
        ("reason", letter.reason),
        ("error", letter.error),
        ("failed at", letter.failed_at.isoformat(timespec="milliseconds")),
        ("came as", f"{letter.entry_id} of {letter.stream}"),
        ("deliveries", str(letter.deliveries)),
        *((("bytes", f"{size:,}, of which only the first are kept"),) if size else ()),
    ):
        table.add_row(name, Text(visible(value), style="red" if name == "reason" else ""))
    return table


app = typer.Typer(
    help="List, replay or drop entries that could not be handled.", epilog=EXAMPLES, no_args_is_help=True
)
for name, function, how in (
    ("list", list_, LIST_EXAMPLES),
    ("show", show, SHOW_EXAMPLES),
    ("replay", replay, REPLAY_EXAMPLES),
    ("drop", drop, DROP_EXAMPLES),
):
    app.command(name, epilog=how)(function)
