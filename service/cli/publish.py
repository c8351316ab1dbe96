"""`deltaloom publish`: write the events of a file or pipe to the input.

Events of the Responses API are published unchanged. Streams of other dialects are translated.
"""

from __future__ import annotations

import json
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
    from collections.abc import Iterable, Iterator, Mapping

    from redis import Redis
    from rich.progress import Progress

    from deltaloom.dialects import Translator
    from deltaloom.streams import Partitions
    from service.cli.dry_run import DryRun
    from service.cli.event_source import EventReader, PackedEntry, Packer
    from service.cli.recording import Recording

EXAMPLES = examples(
    "deltaloom publish stream.jsonl",
    "deltaloom publish stream.sse --response-id resp_42 --rate 50",
    "deltaloom publish stream.sse --context provider=openai",
    "deltaloom publish chat.sse --dialect openai.chat",
    "deltaloom publish chat.sse --dry-run --text",
    "curl -sN https://api.example/v1/responses -d @ask.json | deltaloom publish -",
)

STDIN = "-"
_CHUNK_BYTES = 256 * 1024
_PIPELINED, _PIPELINED_BYTES = 500, 8 * 1024 * 1024
_INTERRUPTED = 130
_UNCHANGED = "openai.responses"
_LOOK_AHEAD_BYTES = 1024 * 1024
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


def _dialect(name: str) -> str:
    """Return the name of a dialect; raise `typer.BadParameter` if there is none with this name."""
    from deltaloom.dialects import dialect_named

    try:
        return dialect_named(name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def run(  # noqa: PLR0913, PLR0917 - the options of the command
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
    dialect: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Dialect of the stream, like openai.chat or anthropic.messages. Default: detected.",
            parser=_dialect,
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Publish nothing, and print what a worker would make of the events."),
    ] = False,
    text: Annotated[bool, typer.Option("--text", help="With --dry-run: show the texts too.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print one JSON object per line.")
    ] = False,
) -> None:
    """Publish a response's streaming events from a file or a pipe.

    Events of the Responses API are published unchanged, even invalid ones, which the worker turns into dead
    letters. Streams of other providers are translated; if a recording has several responses, each becomes one
    of its own. The file is read in chunks, and events from a pipe are published at once.
    """
    if not dry_run and (text or json):
        raise typer.BadParameter("--text and --json need --dry-run")
    if dry_run and rate is not None:
        raise typer.BadParameter("--dry-run has no --rate")
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect_blocking, read_settings
    from service.cli.event_source import EventReader, Packer, TooLargeError
    from service.cli.output import plural
    from service.pipeline.decoded_batch import MAX_ENTRY_SIZE_FACTOR

    settings = read_settings()
    given = [each.partition("=")[::2] for each in context or ()]
    fields = {name: value for name, value in (*given, ("tenant", tenant), ("model", model)) if value}
    with ExitStack() as stack:
        source = stack.enter_context(closing(_open(file)))
        publication: _Publication | DryRun
        if dry_run:
            from service.cli.dry_run import DryRun

            publication = stack.enter_context(DryRun(settings, fields, as_json=json, with_text=text))
        else:
            client = stack.enter_context(connect_blocking(settings))
            publication = _Publication(client, settings.names, fields, rate)
        progress = stack.enter_context(_progress(shown=not dry_run))
        most_bytes = MAX_ENTRY_SIZE_FACTOR * settings.max_event_bytes
        chunks = _Chunks(source)
        try:
            if recording := chunks.recording(dialect, response_id, fields.get("provider")):
                _publish_translated(chunks, publication, progress, recording, coalesce)
            else:
                reader, packer = EventReader(most_bytes), Packer(response_id, coalesce, most_bytes)
                _publish(chunks, publication, progress, reader, packer)
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
        progress.stop()
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
        self.recording: Recording | None = None
        """The translated recording; None if the events are published unchanged."""

    def see(self, *, broken: bool) -> None:
        """Count an event that was read."""
        self._read += 1
        if broken:
            self._broken += 1
            self._first_broken = self._first_broken or self._read

    def add(self, entry: PackedEntry, context: Mapping[str, str] | None = None) -> None:
        """Queue an entry for the input, with its context; if there is a rate, wait until it is due."""
        if entry.response_id not in self._responses:
            self._responses[entry.response_id] = None
            self._check_published_before(entry.response_id)
        self._pace(entry.events)
        known = {**(context or {}), **self._fields, "response_id": entry.response_id}
        fields: Any = {"event": entry.body, **known}
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
        if self.recording is not None:
            note(f"translated from {', '.join(self.recording.dialects)}")
            if self.recording.is_cut:
                note("left out: the responses after the first, since --response-id names only one")
            for what, times in self.recording.left_out.items():
                note(f"left out: {visible(what)}" + (f", {times:,} times" if times > 1 else ""))
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


class _Chunks:
    """The chunks of a file or pipe, of which the first ones may be looked at before they are read.

    Args:
        source: the file or pipe.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._held: list[bytes] = []
        self.size = _size(source)

    def recording(
        self, dialect: str | None, response_id: str | None, provider: str | None
    ) -> Recording | None:
        """Return a recording that translates the stream; None if its events can be published unchanged."""
        from deltaloom.dialects import Translator
        from service.cli.recording import Recording

        name = dialect or self._detect()
        if name is None or name == _UNCHANGED:
            return None

        def make() -> Translator:
            return Translator(name, response_id=response_id, provider=provider)

        return Recording(make, only_one=response_id is not None)

    def _detect(self) -> str | None:
        """Return the dialect of the first messages; None if they show none."""
        from deltaloom.dialects import Translator

        translator, looked_at = Translator(), 0
        while translator.dialect is None and not translator.is_over and looked_at < _LOOK_AHEAD_BYTES:
            chunk = self._read()
            self._held.append(chunk)
            if not chunk:
                break
            translator.feed(chunk)
            looked_at += len(chunk)
        return translator.dialect

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks; the last one is empty."""
        held, self._held = self._held, []
        yield from held
        while not held or held[-1]:
            held = [self._read()]
            yield from held

    def _read(self) -> bytes:
        chunk: bytes = self._source.read1(_CHUNK_BYTES)  # type: ignore[attr-defined]
        return chunk


def _publish(
    chunks: _Chunks,
    publication: _Publication | DryRun,
    progress: Progress,
    reader: EventReader,
    packer: Packer,
) -> None:
    from service.cli.event_source import TooLargeError, look_at

    task = progress.add_task("publish", total=chunks.size, events=0)
    try:
        for chunk in chunks:
            for event in reader.feed(chunk) if chunk else reader.close():
                look = look_at(event)
                publication.see(broken=look.broken)
                for entry in packer.add(event, look):
                    publication.add(entry)
                    progress.update(task, events=publication.events)
            publication.flush()
            progress.update(task, advance=len(chunk), events=publication.events)
    except TooLargeError:
        _finish(publication, packer)
        raise
    _finish(publication, packer)
    progress.update(task, events=publication.events)


def _publish_translated(
    chunks: _Chunks,
    publication: _Publication | DryRun,
    progress: Progress,
    recording: Recording,
    coalesce: int,
) -> None:
    """Publish the events that translators make of the stream."""
    publication.recording = recording
    task = progress.add_task("publish", total=chunks.size, events=0)
    for chunk in chunks:
        for translator, events in recording.feed(chunk) if chunk else recording.end():
            for entry in _packed(events, translator.response_id, coalesce):
                publication.add(entry, translator.context)
        publication.flush()
        progress.update(task, advance=len(chunk), events=publication.events)


def _packed(events: list[dict[str, Any]], response_id: str, coalesce: int) -> Iterable[PackedEntry]:
    """Yield entries with at most this number of events."""
    from service.cli.event_source import PackedEntry

    for start in range(0, len(events), coalesce):
        some = events[start : start + coalesce]
        body = json.dumps(some[0] if len(some) == 1 else some, separators=(",", ":"))
        yield PackedEntry(response_id, body.encode(), len(some))


def _finish(publication: _Publication | DryRun, packer: Packer) -> None:
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


def _progress(*, shown: bool) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    from service.cli.output import console

    return Progress(
        SpinnerColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:,} events"),
        console=console(stderr=True),
        transient=True,
        disable=not (shown and sys.stderr.isatty()),
    )
