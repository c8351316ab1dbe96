"""Build a run of the demo without any problem, which tests then spoil, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
from demo.pacing import publications
from demo.progress import Arrived, Progress, Rang
from demo.stream import load

if TYPE_CHECKING:
    from demo.stream import Expected, Stream

BEGAN = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
STARTED_MS = round(BEGAN.timestamp() * 1000)
LATENCY_MS = 3
RINGS_AFTER_MS = 35


def entry_id(seconds: float, number: int = 0) -> str:
    """Return the id of an entry that was added `seconds` after the beginning."""
    return f"{STARTED_MS + round(seconds * 1000)}-{number}"


def text_of(stream: Stream, expected: Expected) -> AssembledText:
    """Return the message about an expected text."""
    return AssembledText(
        id=f"text_{stream.name}_{expected.part.output_index}_{expected.part.content_index}",
        kind=expected.part.kind,
        response_id=stream.response_id,
        output_index=expected.part.output_index,
        content_index=expected.part.content_index,
        text=expected.text,
        status=expected.outcome.status,
        reason=expected.outcome.reason,
        integrity=expected.outcome.integrity,
        delta_count=expected.delta_count,
        duplicate_count=expected.outcome.duplicates,
        started_at=BEGAN,
        finished_at=BEGAN + timedelta(milliseconds=5000 - LATENCY_MS),
        model=stream.model,
        safety_identifier=stream.safety_identifier,
    ).model_copy(update=dict(stream.context))


def alerts_of(stream: Stream, expected: Expected) -> tuple[ModerationAlert, ModerationAlert]:
    """Return both alerts of a refusal."""
    text = text_of(stream, expected)
    shared = text.model_dump(include=set(ModerationAlert.model_fields) - {"type", "id", "text"})
    raised_at = BEGAN + timedelta(milliseconds=4000 - LATENCY_MS)
    opened = ModerationAlert.model_validate(
        {
            **shared,
            "type": "deltaloom.refusal.opened",
            "id": "opened",
            "text": text.text[:3],
            "severity": "warning",
            "raised_at": raised_at,
            "status": None,
            "reason": None,
            "integrity": None,
        }
    )
    finished = opened.model_copy(
        update={"type": "deltaloom.refusal.finished", "text": text.text, "status": text.status}
    )
    return opened, finished.model_copy(update={"integrity": text.integrity})


def end_alert_of(stream: Stream) -> ModerationAlert:
    """Return the alert about the end of a response that has one."""
    ended_at = BEGAN + timedelta(milliseconds=5000 - LATENCY_MS)
    context = {name: value for name, value in stream.context.items() if name in ModerationAlert.model_fields}
    fallback = {"from_model": "sonata-5", "to_model": "sonata-4"}
    return ModerationAlert.model_validate(
        {
            **context,
            "type": stream.plan.alert,
            "id": "ended",
            "text": "",
            "severity": "warning",
            "status": "completed",
            "fallback": fallback if stream.plan.alert == "deltaloom.response.fallback" else None,
            "raised_at": ended_at,
        }
    )


def rang(alert: ModerationAlert) -> Rang:
    """Return the delivery of an alert to the webhook."""
    return Rang(round(alert.raised_at.timestamp() * 1000) + RINGS_AFTER_MS, alert, "info", "declined")


def sent(until: float = 60.0) -> Progress:
    """Return a run that published everything up to `until` seconds and received no output."""
    progress = Progress(load())
    for stream in progress.streams:
        for number, publication in enumerate(publications(stream)):
            if publication.at <= until:
                progress.published(stream, publication, entry_id(publication.at, number), publication.at)
        progress.tracks[stream.response_id].all_sent = publications(stream)[-1].at <= until
    return progress


def perfect() -> Progress:
    """Return a complete run."""
    progress = sent()
    for stream in progress.streams:
        for expected in stream.expected:
            if expected.part.kind == "refusal":
                opened, finished = alerts_of(stream, expected)
                progress.alert_came(Arrived(entry_id(4.0), opened), 4.0)
                progress.webhook_rang(rang(opened), 4.0)
                progress.alert_came(Arrived(entry_id(5.0, 1), finished), 5.0)
                progress.webhook_rang(rang(finished), 5.0)
            progress.text_came(Arrived(entry_id(5.0), text_of(stream, expected)), 5.0)
        if stream.plan.alert is not None:
            about_end = end_alert_of(stream)
            progress.alert_came(Arrived(entry_id(5.0, 2), about_end), 5.0)
            progress.webhook_rang(rang(about_end), 5.0)
    for broken, name in progress.broken_entries.items():
        stream = next(stream for stream in progress.streams if stream.name == name)
        progress.letter_came(Arrived(entry_id(6.0), letter(broken)), stream.response_id, 6.0)
    return progress


def letter(broken: str) -> DeadLetter:
    """Return the dead letter of an entry that is not JSON."""
    return DeadLetter(
        reason="malformed_json",
        error="not JSON at character 42",
        stream="deltaloom:deltas",
        entry_id=broken,
        deliveries=1,
        failed_at=BEGAN,
        entry="{}",
    )
