"""Summarize a run: input, output and latencies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deltaloom.messages import KnownIntegrity, KnownKind
from demo.phrases import ALERT_TONE, INTEGRITY_TONES, LETTER_TONE, RING_TONE, after_ms, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from deltaloom.messages import Integrity, Kind
    from demo.progress import Progress

KINDS: tuple[Kind, ...] = get_args(KnownKind)
INTEGRITIES: tuple[Integrity, ...] = get_args(KnownIntegrity)
_OPENED = "deltaloom.refusal.opened"
_FINISHED = "deltaloom.refusal.finished"

_ROOMY = 80
"""Width of a terminal, in columns, from which two tables stand side by side."""
_KIND_WIDTH = max(map(len, KINDS))


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run."""

    events: int
    entries: int
    repeats: int
    texts: Counter[tuple[Kind, Integrity]]
    alerts_opened: int
    alerts_finished: int
    alerts_ended: int
    """Alerts about the ends of responses."""
    dead_letters: Counter[str]
    to_text_ms: Sequence[int]
    """Milliseconds from the entry that closed a text to the text's entry; abandoned texts are omitted."""
    to_alert_ms: Sequence[int]
    """Milliseconds from the entry with a refusal's first delta to its alert's entry."""
    rings: int
    to_webhook_ms: Sequence[int]
    """Milliseconds from the entry with a refusal's first delta to the webhook's request."""


def summarised(progress: Progress) -> Summary:
    """Return the figures of a run."""
    opened = [alert for alert in progress.alerts if alert.message.type == _OPENED]
    to_text = (after_ms(text) for text in progress.texts)
    to_alert = (after_ms(alert) for alert in opened)
    to_webhook = (after_ms(rang) for rang in progress.rings if rang.message.type == _OPENED)
    return Summary(
        events=progress.events,
        entries=progress.entries,
        repeats=sum(text.message.duplicate_count for text in progress.texts),
        texts=Counter((text.message.kind, text.message.integrity) for text in progress.texts),
        alerts_opened=len(opened),
        alerts_finished=sum(alert.message.type == _FINISHED for alert in progress.alerts),
        alerts_ended=sum(alert.message.kind is None for alert in progress.alerts),
        dead_letters=Counter(str(letter.message.reason) for letter in progress.letters),
        to_text_ms=sorted(ms for ms in to_text if ms is not None),
        to_alert_ms=sorted(ms for ms in to_alert if ms is not None),
        rings=len(progress.rings),
        to_webhook_ms=sorted(ms for ms in to_webhook if ms is not None),
    )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the nearest-rank percentile of ordered values: the least that `percent` % do not exceed."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


def _numbers(summary: Summary) -> list[tuple[str, str, str]]:
    """Return rows of a name, a value and a style."""
    letters = ", ".join(f"{count} {reason}" for reason, count in summary.dead_letters.items())
    return [
        ("events in", f"{summary.events} in {plural(summary.entries, 'entry')}", ""),
        ("repeats dropped", f"{summary.repeats}", ""),
        ("alerts", f"{summary.alerts_opened} opened, {summary.alerts_finished} finished", ALERT_TONE),
        ("alerts about ends", f"{summary.alerts_ended}", ALERT_TONE if summary.alerts_ended else ""),
        (
            "webhook rang",
            f"{plural(summary.rings, 'time')}, verified" if summary.rings else "never",
            RING_TONE,
        ),
        ("dead letters", letters or "none", LETTER_TONE if letters else ""),
    ]


def _latencies(summary: Summary) -> list[tuple[str, str, str]]:
    """Return rows of a name, the median and the 99th percentile."""
    return [
        ("closing event to text", *_percentiles(summary.to_text_ms)),
        ("first delta to alert", *_percentiles(summary.to_alert_ms)),
        ("first delta to webhook", *_percentiles(summary.to_webhook_ms)),
    ]


def _percentiles(values: Sequence[int]) -> tuple[str, str]:
    if not values:
        return "-", "-"
    return f"{percentile(values, 50)} ms", f"{percentile(values, 99)} ms"


def as_lines(summary: Summary) -> list[str]:
    """Return the summary as aligned plain text."""
    return [
        *(f"{name:<24}{value}" for name, value, _ in _numbers(summary)),
        "",
        _line("texts out", INTEGRITIES),
        *(_line(kind, [summary.texts[kind, integrity] for integrity in INTEGRITIES]) for kind in KINDS),
        "",
        f"{'from XADD to output':<24}{'p50':>12}{'p99':>12}",
        *(f"{name:<24}{median:>12}{high:>12}" for name, median, high in _latencies(summary)),
    ]


def _line(kind: str, cells: Sequence[object]) -> str:
    """Return a row of the table of texts, in which each column is two wider than its head."""
    columns = zip(INTEGRITIES, cells, strict=True)
    return f"{kind:<{_KIND_WIDTH}}" + "".join(f"{cell:>{len(head) + 2}}" for head, cell in columns)


def as_tables(summary: Summary, width: int) -> RenderableType:
    """Return the summary for a terminal of this width, which is at least 60 columns."""
    numbers = Table.grid(padding=(0, 2))
    for name, value, style in _numbers(summary):
        numbers.add_row(Text(name, "bold"), Text(value, style))
    texts = _table("texts out", *INTEGRITIES)
    for kind in KINDS:
        texts.add_row(
            kind.replace("_", " "), *(_count(summary, kind, integrity) for integrity in INTEGRITIES)
        )
    latencies = _table("from XADD to output", "p50", "p99")
    for row in _latencies(summary):
        latencies.add_row(*row)
    if width < _ROOMY:
        return Group(texts, Text(), numbers, Text(), latencies)
    beside = Table.grid(padding=(0, 2))
    beside.add_row(numbers, latencies)
    return Group(texts, Text(), beside)


def _table(first: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _count(summary: Summary, kind: Kind, integrity: Integrity) -> Text:
    count = summary.texts[kind, integrity]
    return Text(str(count), INTEGRITY_TONES[integrity]) if count else Text("·", "dim")
