"""Put happenings into words, for the lines of a plain run and the feed of a live one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
from demo.progress import Rang
from service.visible import visible

if TYPE_CHECKING:
    from datetime import datetime

    from demo.progress import Arrived, Happening

Tone = str
"""A rich style; plain runs ignore it."""

INTEGRITY_TONES: Final[dict[str, Tone]] = {"verified": "green", "repaired": "yellow", "unverified": "magenta"}
ALERT_TONE: Final[Tone] = "bold red"
LETTER_TONE: Final[Tone] = "yellow"
RING_TONE: Final[Tone] = "bold magenta"

PHASES: Final[dict[str, tuple[str, str]]] = {
    "deltaloom.refusal.opened": ("opened", "the first delta"),
    "deltaloom.refusal.finished": ("finished", "the last event"),
    "deltaloom.response.filtered": ("filtered", "the last event"),
    "deltaloom.response.fallback": ("fallback", "the last event"),
}
"""Name of each alert type's phase, and the event that raises the alert."""


class Words(NamedTuple):
    """A happening in words, without its time and stream."""

    label: str
    detail: str
    tone: Tone = ""


def excerpt(text: str, width: int) -> str:
    """Return the beginning of a text as a line of at most `width` characters."""
    line = " ".join(visible(text, keep="\n").split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def plural(count: int, noun: str) -> str:
    """Return a number with its noun, `1 alert` or `2 alerts`; a noun in -ry gets -ries, others get an s."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("ry") else f"{count} {noun}s"


def after_ms(arrived: Arrived[AssembledText] | Arrived[ModerationAlert] | Rang) -> int | None:
    """Return the milliseconds from the entry that caused a message to the message's entry, or to the webhook.

    Times of entries are the server's, from their ids. The webhook's time is this machine's, where the server
    runs. None if the text was abandoned, since no entry caused that.
    """
    message = arrived.message
    if message.status == "abandoned":
        return None
    cause = message.raised_at if isinstance(message, ModerationAlert) else message.finished_at
    return arrived.ms - _ms(cause)


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def words(happening: Happening) -> Words:
    """Return a happening in words."""
    if happening.message is None:
        how = f"translated from {happening.dialect}" if happening.dialect else ""
        return Words("begins", how, "dim")
    if isinstance(happening.message, Rang):
        return Words("webhook rang", _of_ring(happening.message), RING_TONE)
    message = happening.message.message
    if isinstance(message, DeadLetter):
        return Words("dead letter", f"{message.reason}: {excerpt(message.error, 90)}", LETTER_TONE)
    if isinstance(message, ModerationAlert):
        return _of_alert(message)
    return Words("text", _of_text(message), INTEGRITY_TONES[message.integrity])


def _of_ring(rang: Rang) -> str:
    phase, since = PHASES.get(rang.message.type, (rang.message.type, "what raised it"))
    return f"{phase}, {after_ms(rang)} ms after {since}: {rang.severity}, {rang.category}"


def _of_alert(alert: ModerationAlert) -> Words:
    if alert.type == "deltaloom.refusal.opened":
        return Words("ALERT opened", f"refusal, so far {_quoted(alert.text, 40)}", ALERT_TONE)
    if alert.type == "deltaloom.refusal.finished":
        return Words("ALERT finished", f"{alert.status}, {alert.integrity}", "red")
    phase, _ = PHASES.get(alert.type, (alert.type, ""))
    return Words(f"ALERT {phase}", _of_end(alert), ALERT_TONE)


def _of_end(alert: ModerationAlert) -> str:
    """Return what an alert says about the end of a response."""
    if alert.fallback is not None:
        return f"{alert.fallback.to_model} answered in place of {alert.fallback.from_model}"
    return ", ".join(each for each in (alert.status, alert.reason, alert.provider_category) if each)


def _of_text(text: AssembledText) -> str:
    how = [text.integrity] if text.status == "completed" else [text.status, text.integrity]
    counted = [plural(text.delta_count, "delta")]
    if text.duplicate_count:
        counted.append(f"{plural(text.duplicate_count, 'repeat')} dropped")
    return f"{text.kind}, {', '.join([*how, *counted])}: {_quoted(text.text, 48)}"


def _quoted(text: str, width: int) -> str:
    return f"“{excerpt(text, width)}”"
