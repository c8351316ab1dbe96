"""Draw the live view: a picture of the progress in exactly the size of the terminal.

Panels in two columns show one stream each. While a text grows, its panel shows the end of the sent text,
with repeats and gaps; when the worker has finished the text, the panel shows that instead. The feed below
shows what an operator would receive: alerts, webhook calls and dead letters.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich import box
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deltaloom.messages import AssembledText
from demo.phrases import ALERT_TONE, INTEGRITY_TONES, after_ms, plural, words
from demo.stream import joined_halves
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from demo.progress import Happening, Piece, Progress, Track

LEAST_WIDTH, LEAST_HEIGHT = 60, 22
"""Minimum size of the terminal in columns and rows; a smaller one gets a plain run."""

_WIDE = 105
"""Width of a terminal, in columns, from which three panels stand side by side instead of two."""
_TALLEST = 11
_ROOMY = 30
_SILENCE: Final = 1.0
"""Seconds without a publication after which an unfinished stream is shown as silent."""

_MARKS = {"verified": "✓", "repaired": "✓", "unverified": "○"}
_PIECES = {"new": "", "repeat": "yellow strike", "broken": "bold yellow"}
_GAP = " ▒▒▒▒"
_CURSOR = "▌"
_GROWING = {
    "refusal": "red",
    "reasoning": "dim italic",
    "reasoning_summary": "dim italic",
    "output_text": "dim",
}
_FINISHED = {"refusal": "bright_red"}
_SHORT_KINDS = {"reasoning_summary": "summary", "output_text": "answer"}
_MODEL_FITS = 46
_DIALECT_FITS = 36
_GAPS = 4
"""Columns of the header that stay empty: two on each side of its middle."""
_FRAME = 4
"""Columns of a panel's width that its frame takes from the subtitle."""


class Tail:
    """The last lines of a text that fit into the available height."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self._text.wrap(console, options.max_width)
        yield from lines[-(options.height or len(lines)) :]


def picture(progress: Progress, now: float, width: int, height: int) -> Layout:
    """Return the whole screen for a terminal of this size."""
    tracks = list(progress.tracks.values())
    columns = 3 if width >= _WIDE else 2
    rows = -(-len(tracks) // columns)
    least_feed = 3 if height < _ROOMY else 5
    panel_height = max(2, min((height - 1 - least_feed) // rows, _TALLEST))
    screen = Layout()
    screen.split_column(
        Layout(_header(progress, now, width), size=1),
        *(
            _row(tracks[first : first + columns], columns, now, width // columns, panel_height)
            for first in range(0, len(tracks), columns)
        ),
        Layout(_feed(progress.happenings, height - 1 - rows * panel_height)),
    )
    return screen


def _row(tracks: Sequence[Track], columns: int, now: float, width: int, height: int) -> Layout:
    row = Layout(size=height)
    panels = [Layout(_panel(track, now, width)) for track in tracks]
    row.split_row(*panels, *(Layout(Text(" ")) for _ in range(columns - len(panels))))
    return row


def _header(progress: Progress, now: float, width: int) -> Table:
    title = Text(" deltaloom demo ", "bold reverse")
    counted = Text(f"{progress.events:>4} events  {now:4.1f} s ", "dim")
    room = width - title.cell_len - counted.cell_len - _GAPS
    stage = next((stage for stage in _stages(progress) if len(stage) <= room), "")
    header = Table.grid(expand=True)
    header.add_column(no_wrap=True)
    header.add_column(justify="right", no_wrap=True)
    header.add_row(Text.assemble(title, "  ", (stage, "dim")), counted)
    return header


def _stages(progress: Progress) -> Sequence[str]:
    """Return descriptions of the current stage, longest first; the first one that fits is shown."""
    if not progress.entries:
        return "starting a server, a worker and a relay …", "starting …"
    streams = f"{len(progress.streams)} streams"
    return f"{streams} → worker → relay → webhook", streams


def _panel(track: Track, now: float, width: int) -> Panel:
    refused = track.opened is not None
    tone = "red" if refused else "dim" if not track.began else _tone(track)
    return Panel(
        Tail(_text(track)),
        box=box.HEAVY if refused else box.ROUNDED,
        title=_title(track, width),
        title_align="left",
        subtitle=_state(track, now, width - _FRAME),
        subtitle_align="right",
        border_style=tone,
        padding=(0, 1),
    )


def _title(track: Track, width: int) -> Text:
    """Return the name of the stream, the kind of its latest text, and the model if it fits."""
    title = Text(track.stream.name, "bold" if track.began else "dim")
    kind = next(reversed(track.sent)).kind if track.sent else None
    if kind is not None:
        title.append(f" · {_SHORT_KINDS.get(kind, kind)}", "bold red" if kind == "refusal" else "not bold")
    if track.began and track.stream.plan.dialect and width >= _DIALECT_FITS:
        title.append(f" · {track.stream.plan.dialect.partition('.')[0]}", "not bold cyan")
    elif track.began and width >= _MODEL_FITS:
        title.append(f" · {track.stream.model}", "not bold dim")
    return title


def _tone(track: Track) -> str:
    """Return the border style of a stream without an alert: that of its worst text, once all have come."""
    if not track.finished:
        return "cyan"
    integrities = {arrived.message.integrity for arrived in track.texts.values()}
    worst = next(each for each in ("unverified", "repaired", "verified") if each in integrities)
    return INTEGRITY_TONES[worst]


def _text(track: Track) -> Text:
    shown = Text()
    parts = list(dict.fromkeys([*track.sent, *track.texts]))
    for number, part in enumerate(parts):
        if number:
            shown.append("\n")
        finished = track.texts.get(part)
        if finished is not None:
            shown.append(_lines(finished.message.text), _FINISHED.get(part.kind, ""))
            continue
        for text, style in _sent(track.sent[part]):
            shown.append(text, style or _GROWING[part.kind])
        if part == parts[-1] and not track.all_sent:
            shown.append(_CURSOR, "bold")
    return shown


def _sent(pieces: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    """Yield the sent pieces of a text, joined into runs of one style."""
    for mark, run in groupby(pieces, key=lambda piece: piece.mark):
        text = _GAP if mark == "broken" else _lines(joined_halves("".join(piece.text for piece in run)))
        yield text, _PIECES[mark]


def _lines(text: str) -> str:
    """Return a text without empty lines and with invisible characters escaped."""
    return visible(text.replace("\n\n", "\n"), keep="\n")


def _state(track: Track, now: float, width: int) -> Text:
    """Return a panel's subtitle: the longest of three that fits. The feed shows the rest."""
    said = [
        Text("  ").join([*_alerted(track, rang=True), *_came(track, now)]),
        Text("  ").join([*_alerted(track), *_came(track, now)]),
        Text("  ").join([*_alerted(track, timed=False), *_came(track, now, short=True)]),
    ]
    return next((each for each in said if each.cell_len <= width), said[-1])


def _alerted(track: Track, *, rang: bool = False, timed: bool = True) -> Iterator[Text]:
    if track.opened is not None:
        after = f" after {after_ms(track.opened)} ms" if timed else ""
        ringing = f", webhook {after_ms(track.rang)} ms" if rang and track.rang is not None else ""
        yield Text(f"● alert{after}{ringing}", ALERT_TONE)


def _came(track: Track, now: float, *, short: bool = False) -> Iterator[Text]:
    texts = [track.texts[part].message for part in sorted(track.texts)]
    for (integrity, status), alike in groupby(texts, key=lambda text: (text.integrity, text.status)):
        yield Text(_verdict(list(alike), integrity, status, short=short), INTEGRITY_TONES[integrity])
    if not texts and track.opened is None and track.began:
        yield Text(_waiting(track, now), "yellow" if track.all_sent else "dim")


def _waiting(track: Track, now: float) -> str:
    if track.all_sent and now - track.latest >= _SILENCE:
        return f"silent for {now - track.latest:.0f} s"
    return plural(track.deltas, "delta") if track.deltas else "…"


def _verdict(texts: Sequence[AssembledText], integrity: str, status: str, *, short: bool) -> str:
    marks = _MARKS[integrity] * len(texts)
    repeats = sum(text.duplicate_count for text in texts)
    if repeats:
        return f"{marks} {integrity}, {plural(repeats, 'repeat')}{'' if short else ' dropped'}"
    return f"{marks} {integrity if status == 'completed' else status}"


def _feed(happenings: Sequence[Happening], height: int) -> Table:
    """Return the latest alerts, webhook calls and dead letters, one per line."""
    shown = [
        happening
        for happening in happenings
        if happening.message is not None and not isinstance(happening.message.message, AssembledText)
    ]
    feed = Table.grid(padding=(0, 1), expand=True)
    for style in ("dim", "", "bold"):
        feed.add_column(no_wrap=True, style=style)
    feed.add_column(no_wrap=True, ratio=1, overflow="ellipsis", style="dim")
    for happening in shown[-height:]:
        said = words(happening)
        feed.add_row(
            f" {happening.at:4.1f} s",
            Text(f"● {said.label}", said.tone),
            happening.stream,
            said.detail,
        )
    if not shown:
        feed.add_row("", Text("alerts, webhook calls and dead letters will stand here", "dim"))
    return feed
