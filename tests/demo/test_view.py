"""Test the live view: it fits all terminals and shows the state of the run."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from demo.progress import Arrived, Progress
from demo.view import LEAST_HEIGHT, LEAST_WIDTH, picture
from tests.demo.perfect import entry_id, perfect, rang, sent

SIZES = [(LEAST_WIDTH, LEAST_HEIGHT), (80, 24), (100, 30), (140, 45), (200, 60)]
MOMENTS = {
    "nothing yet": lambda: sent(until=-1),
    "midway": lambda: sent(until=6),
    "all sent": sent,
    "over": perfect,
}


def _drawn(progress: Progress, now: float = 12.0, width: int = 100, height: int = 30) -> str:
    out = StringIO()
    console = Console(file=out, width=width, height=height, legacy_windows=False)
    console.print(picture(progress, now, width, height), height=height)
    return out.getvalue()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_picture_fits_the_terminal(moment: str, size: tuple[int, int]) -> None:
    """Fill the terminal exactly. Otherwise lines would wrap and the view would jump."""
    width, height = size
    lines = _drawn(MOMENTS[moment](), width=width, height=height).splitlines()
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (40, 8), (30, 90)], ids=str)
def test_terminal_made_tiny_does_no_harm(size: tuple[int, int]) -> None:
    """Draw on a tiny terminal, instead of ending in a traceback when the window shrinks."""
    assert _drawn(perfect(), width=size[0], height=size[1])


def test_growing_text_shows_gaps_and_repeats_as_they_are() -> None:
    """Show gaps and repeats of an open text as they arrive."""
    drawn = _drawn(sent(until=4.5), height=45)
    assert '"The ▒▒▒▒ has arrived' in drawn
    assert "the mountain the mountain" in drawn


def test_finished_text_is_the_workers() -> None:
    """Show the worker's text once it is finished, not the producer's deltas."""
    drawn = _drawn(perfect(), width=200, height=60)
    assert "goat has arrived safely" in drawn
    assert "▒" not in drawn
    assert "the mountain the mountain" not in drawn
    assert "✓ verified, 6 repeats dropped" in drawn
    assert "✓✓ verified  ✓ incomplete" in drawn
    assert "✓ repaired" in drawn
    assert "○ abandoned" in drawn


def test_alert_shows_only_when_it_has_come() -> None:
    """Mark a refusal only once its alert has arrived."""
    run = sent(until=6)
    assert "alert after" not in _drawn(run)
    alert = perfect().alerts[0]
    run.alert_came(alert, 6.0)
    assert "● alert after 3 ms" in _drawn(run)
    assert "ALERT opened" in _drawn(run)


def test_webhook_shows_when_it_has_rung() -> None:
    """Show a delivery once it has arrived, and drop it on a narrow terminal in favour of the verdict."""
    run = sent(until=6)
    alert = perfect().alerts[0]
    run.alert_came(alert, 6.0)
    run.webhook_rang(rang(alert.message), 6.1)
    drawn = _drawn(run)
    assert "● alert after 3 ms, webhook 35 ms" in drawn
    assert "● webhook rang storefront opened, 35 ms after the first delta: info, declined" in drawn
    assert "● alert after 3 ms, webhook 35 ms  ✓ verified" in _drawn(perfect(), width=200)
    assert "● alert after 3 ms  ✓ verified" in _drawn(perfect(), width=80)


def test_narrow_terminal_shortens_words_instead_of_cutting_them() -> None:
    """Show each verdict, the number of events and the time in whole words on a terminal of 60 columns."""
    drawn = _drawn(perfect(), width=LEAST_WIDTH, height=LEAST_HEIGHT)
    header, *panels = drawn.splitlines()
    assert header.split() == ["deltaloom", "demo", "11", "streams", "1009", "events", "12.0", "s"]
    assert "● alert  ✓ verified ━┛" in drawn
    assert "✓ verified, 6 repeats ─╯" in drawn
    assert not any("…" in line for line in panels if "╯" in line or "┛" in line)
    begun = _drawn(sent(until=-1), width=LEAST_WIDTH, height=LEAST_HEIGHT)
    assert "deltaloom demo   starting … " in begun.splitlines()[0]
    assert "11 streams → worker → relay → webhook" in _drawn(perfect(), width=80)


def test_cut_off_stream_is_shown_as_silent() -> None:
    """Show how long a stream without an end has been silent."""
    assert "silent for 4 s" in _drawn(sent(until=6), now=9.7)


def test_control_characters_in_a_text_are_escaped() -> None:
    """Escape control characters of a model's text. Otherwise it could control the terminal."""
    run = perfect()
    evil = "\x1b]0;title\x07\x1b[2J\r\x9b31m\u202etxt"
    stream = run.streams[0]
    last = next(text for text in run.texts if text.message.response_id == stream.response_id)
    run.text_came(Arrived(entry_id(7), last.message.model_copy(update={"text": evil})), 7.0)
    drawn = _drawn(run)
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(drawn)
    assert "\\x1b]0;title\\x07" in drawn
