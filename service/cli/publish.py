"""`deltaloom publish`: write the events of a file or pipe to the input, unchanged."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import ExitStack, closing, suppress
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from redis import Redis
    from rich.progress import Progress

    from deltaloom.streams import Partitions
    from service.cli.event_source import EventReader, PackedEntry, Packer

EXAMPLES = examples(
    "deltaloom publish stream.jsonl",
    "deltaloom publish stream.sse --response-id resp_42 --rate 50",
    "deltaloom publish stream.sse --context provider=openai",
    "curl -sN https://api.example/v1/responses -d @ask.json | deltaloom publish -",
)

STDIN = "-"
_CHUNK_BYTES = 256 * 1024
_PIPELINED, _PIPELINED_BYTES = 500, 8 * 1024 * 1024
_INTERRUPTED = 130
_STREAMS_NAMED = 3
_RESPONSES_NAMED = 20


def _file(name: str) -> Path:
    file = Path(name)
    if name != STDIN:
        if not file.exists():
            raise typer.BadParameter(f"there is no file {name}")
        if not file.is_file() and not file.is_fifo():
            raise typer.BadParameter(f"{name} is not a file")
        if not os.access(file, os.R_OK):
            raise typer.BadParameter(f"{name} may not be read")
    return file


def _context(text: str) -> str:
    """Return a context field, NAME=VALUE; raise `typer.BadParameter` if the contract has no such name."""
    from handlers.core.effects import CONTEXT_NAMES

    name, equals, _ = text.partition("=")
    if not equals or name not in CONTEXT_NAMES:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE with a name of {', '.join(CONTEXT_NAMES)}")
    return text


def run(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|-",
            help="JSON lines (an event per line), server-sent events or a JSON document; the format is "
            "detected. - is stdin.",
            parser=_file,
            show_default=False,
        ),
    ],
    response_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Response that the events belong to. Default: the id in the stream's response.created, "
            "else in any event, else a new one.",
            show_default=False,
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Tenant of the response; copied to the output.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model of the response; copied to the output.", show_default=False),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another context field, like provider=openai or reference=https://…; repeatable.",
            parser=_context,
            show_default=False,
        ),
    ] = None,
    coalesce: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Events per entry, as a JSON array.")
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="PER_SECOND",
            help="Events per second. Default: as fast as possible.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Publish a response's streaming events from a file or a pipe.

    Events are published unchanged, even invalid ones, which the worker turns into dead letters. The file is
    read in chunks, and events from a pipe are published at once.
    """
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect_blocking, read_settings
    from service.cli.event_source import EventReader, Packer, TooLargeError
    from service.cli.output import plural
    from service.pipeline.decoded_batch import MAX_ENTRY_EVENTS

    settings = read_settings()
    given = [each.partition("=")[::2] for each in context or ()]
    fields = {name: value for name, value in (*given, ("tenant", tenant), ("model", model)) if value}
    with ExitStack() as stack:
        source = stack.enter_context(closing(_open(file)))
        client = stack.enter_context(connect_blocking(settings))
        progress = stack.enter_context(_progress())
        most_bytes = MAX_ENTRY_EVENTS * settings.max_event_bytes
        publication = _Publication(client, settings.names, fields, rate)
        try:
            reader, packer = EventReader(most_bytes), Packer(response_id, coalesce, most_bytes)
            _publish(source, publication, progress, reader, packer)
        except TooLargeError as error:
            progress.stop()
            raise CommandError(
                f"{error}, which is more than an entry may have (8 times DELTALOOM_MAX_EVENT_BYTES): put one "
                "event on each line, or raise the limit; "
                f"{plural(publication.events, 'event')} before it went out"
            ) from None
        except KeyboardInterrupt:
            progress.stop()
            publication.report(interrupted=True)
            raise typer.Exit(_INTERRUPTED) from None
    if not publication.events:
        source_name = "standard input" if str(file) == STDIN else file
        raise CommandError(f"{source_name} has no event: nothing was published")
    publication.report()


class _Publication:
    """Entries being written to the input, many per round trip."""

    def __init__(
        self, client: Redis, partitions: Partitions, fields: dict[str, str], rate: float | None
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._pipeline = client.pipeline(transaction=False)
        self._fields = fields
        self._rate = rate
        self._began = time.monotonic()
        self._paced = 0
        self._sent_before: list[str] = []
        self._read = 0
        self._broken = 0
        self._first_broken: int | None = None
        self._responses: dict[str, None] = {}
        self._entries = 0
        self._held = 0
        """Bytes of entries not yet sent."""
        self.events = 0

    def see(self, *, broken: bool) -> None:
        """Count an event that was read."""
        self._read += 1
        if broken:
            self._broken += 1
            self._first_broken = self._first_broken or self._read

    def add(self, entry: PackedEntry) -> None:
        """Queue an entry for the input; if there is a rate, wait until it is due."""
        if entry.response_id not in self._responses:
            self._responses[entry.response_id] = None
            self._check_published_before(entry.response_id)
        self._pace(entry.events)
        fields: Any = {"event": entry.body, "response_id": entry.response_id, **self._fields}
        self._pipeline.xadd(self._partitions.of(entry.response_id).deltas, fields)
        self._entries += 1
        self._held += len(entry.body)
        self.events += entry.events
        if len(self._pipeline) >= _PIPELINED or self._held >= _PIPELINED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send all queued entries."""
        if len(self._pipeline):
            self._pipeline.execute()
            self._held = 0

    def _pace(self, events: int) -> None:
        if self._rate is not None:
            wait = self._began + self._paced / self._rate - time.monotonic()
            if wait > 0:
                self.flush()
                time.sleep(wait)
            self._paced += events

    def _check_published_before(self, response_id: str) -> None:
        """Record whether the response was published before."""
        from redis.exceptions import NoPermissionError

        from handlers.core.identity import StreamKey
        from service.keys import Keys

        names = self._partitions.of(response_id)
        state = Keys(names).state(StreamKey("response", response_id))
        with suppress(NoPermissionError):  # a producer may have the right to XADD alone
            if self._client.exists(state, names.item(response_id, 0)):
                self._sent_before.append(response_id)

    def report(self, *, interrupted: bool = False) -> None:
        """Print what was published, with warnings."""
        from service.cli.output import console, note, plural
        from service.visible import visible

        done = "interrupted: published" if interrupted else "published"
        named = [visible(each) for each in islice(self._responses, _RESPONSES_NAMED)]
        more = len(self._responses) - len(named)
        ids = ", ".join([*named, *([f"and {more:,} more"] if more else [])]) or "nothing"
        what = "response" if len(self._responses) == 1 else f"{len(self._responses)} responses"
        streams = list(dict.fromkeys(self._partitions.of(each).deltas for each in self._responses))
        where = plural(len(streams), "partition") if len(streams) > _STREAMS_NAMED else ", ".join(streams)
        console().print(
            f"{done} {plural(self.events, 'event')} in {plural(self._entries, 'entry', 'entries')} "
            f"to {where or 'no stream'} as {what} {ids}",
            soft_wrap=True,
        )
        if self._broken:
            which = (
                f"{plural(self._broken, 'event')} cannot be read (the first is number {self._first_broken})"
            )
            note(f"{which}: published all the same, and the worker will make dead letters of them")
        for response_id in self._sent_before:
            note(
                f"{response_id} was published before. The same id is the same response: what is finished "
                "stays as it is. --response-id NEW makes it another one"
            )


def _publish(
    source: IO[bytes],
    publication: _Publication,
    progress: Progress,
    reader: EventReader,
    packer: Packer,
) -> None:
    from service.cli.event_source import TooLargeError, look_at

    task = progress.add_task("publish", total=_size(source), events=0)
    try:
        while True:
            chunk = source.read1(_CHUNK_BYTES)  # type: ignore[attr-defined]
            for event in reader.feed(chunk) if chunk else reader.close():
                look = look_at(event)
                publication.see(broken=look.broken)
                for entry in packer.add(event, look):
                    publication.add(entry)
                    progress.update(task, events=publication.events)
            if not chunk:
                break
            publication.flush()
            progress.update(task, advance=len(chunk), events=publication.events)
    except TooLargeError:
        _finish(publication, packer)
        raise
    _finish(publication, packer)
    progress.update(task, events=publication.events)


def _finish(publication: _Publication, packer: Packer) -> None:
    """Publish the events held back in the packer."""
    for entry in packer.close():
        publication.add(entry)
    publication.flush()


def _open(file: Path) -> IO[bytes]:
    return open(0, "rb", closefd=False) if str(file) == STDIN else file.open("rb")


def _size(source: IO[bytes]) -> int | None:
    """Return the size of a file in bytes; None for a pipe."""
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    from service.cli.output import console

    return Progress(
        SpinnerColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:,} events"),
        console=console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
