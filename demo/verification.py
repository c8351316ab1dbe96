"""Verify the output of a run; each problem is one sentence."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from demo.phrases import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deltaloom.messages import AssembledText, ModerationAlert
    from demo.progress import Arrived, Progress
    from demo.stream import Expected, Stream

_Key = tuple[str | None, int | None, int | None, str | None]
"""Response id, output index, content index and kind; None in alerts that are not about a single part."""

_Texts = dict[_Key, list["Arrived[AssembledText]"]]
_Alerts = dict[_Key, list["Arrived[ModerationAlert]"]]


def problems(progress: Progress) -> list[str]:
    """Return what is missing, wrong or superfluous in the output; empty if all is as expected."""
    texts: _Texts = {}
    for text in progress.texts:
        texts.setdefault(_key(text.message), []).append(text)
    alerts: _Alerts = {}
    for alert in progress.alerts:
        alerts.setdefault(_key(alert.message), []).append(alert)
    wrong = [
        each
        for stream in progress.streams
        for each in _of_stream(stream, texts, alerts, merges=stream.name in progress.tapped)
    ]
    # Expected texts and alerts have been removed from both.
    wrong += [f"an unexpected text came: {_named(*key)}" for key in texts]
    wrong += [f"an unexpected alert came: {_named(*key)}" for key in alerts]
    return [*wrong, *_of_rings(progress), *_of_letters(progress)]


def _key(message: AssembledText | ModerationAlert) -> _Key:
    return message.response_id, message.output_index, message.content_index, message.kind


def _named(
    response_id: str | None, output_index: int | None, content_index: int | None, kind: str | None
) -> str:
    return f"{kind} {output_index}/{content_index} of {excerpt(str(response_id), 60)}"


def _of_stream(stream: Stream, texts: _Texts, alerts: _Alerts, *, merges: bool) -> Iterator[str]:
    for expected in stream.expected:
        key = stream.response_id, *expected.part
        name = (
            f"{stream.name}: {expected.part.kind} {expected.part.output_index}/{expected.part.content_index}"
        )
        came = texts.pop(key, [])
        if len(came) != 1:
            yield f"{name}: its text came {len(came)} times, not once"
        for text in came[:1]:
            yield from (
                f"{name}: {wrong}" for wrong in _of_text(stream, expected, text.message, merges=merges)
            )
        raised = alerts.pop(key, []) if expected.part.kind == "refusal" else []
        if expected.part.kind == "refusal":
            yield from (f"{name}: {wrong}" for wrong in _of_alerts(stream, expected, raised))
    about_end = alerts.pop((stream.response_id, None, None, None), [])
    yield from (f"{stream.name}: {wrong}" for wrong in _of_end(stream, about_end))


def _of_end(stream: Stream, raised: list[Arrived[ModerationAlert]]) -> Iterator[str]:
    """Check the alerts about the end of a response."""
    wanted = [] if stream.plan.alert is None else [stream.plan.alert]
    types = [alert.message.type for alert in raised]
    if types != wanted:
        yield f"the alerts about its end are {types}, not {wanted}"
        return
    for alert in raised:
        yield from (
            f"in its {alert.message.type}, {wrong}"
            for wrong in _wrong_fields(_context(stream), alert.message)
        )


def _of_text(stream: Stream, expected: Expected, text: AssembledText, *, merges: bool) -> Iterator[str]:
    """Check a text. A publisher that merges deltas of 20 ms leaves fewer of them."""
    is_merged = merges and 1 <= text.delta_count <= expected.delta_count
    if text.text != expected.text:
        yield _difference(expected.text, text.text)
    wanted = {
        "status": expected.outcome.status,
        "reason": expected.outcome.reason,
        "integrity": expected.outcome.integrity,
        "delta_count": text.delta_count if is_merged else expected.delta_count,
        "duplicate_count": expected.outcome.duplicates,
        **_context(stream),
    }
    yield from _wrong_fields(wanted, text)


def _context(stream: Stream) -> dict[str, str | None]:
    learned = {"model": stream.model, "safety_identifier": stream.safety_identifier}
    return {**learned, **{name: value for name, value in stream.context.items() if name != "response_id"}}


def _wrong_fields(wanted: dict[str, Any], message: AssembledText | ModerationAlert) -> Iterator[str]:
    for name, value in wanted.items():
        got = getattr(message, name)
        if got != value:
            yield f"its {name} is {got!r}, not {value!r}"


def _difference(wanted: str, got: str) -> str:
    at = next((n for n, (a, b) in enumerate(zip_longest(wanted, got)) if a != b), 0)
    return f"its text is wrong from character {at}: {got[at : at + 30]!r}, not {wanted[at : at + 30]!r}"


def _of_alerts(stream: Stream, expected: Expected, raised: list[Arrived[ModerationAlert]]) -> Iterator[str]:
    types = [alert.message.type.rpartition(".")[2] for alert in raised]
    if types != ["opened", "finished"]:
        yield f"its alerts are {types}, not one opened and then one finished"
        return
    opened, finished = (alert.message for alert in raised)
    if not opened.text or not expected.text.startswith(opened.text):
        yield f"its alert opened with {opened.text[:40]!r}, which is not how it begins"
    if finished.text != expected.text:
        yield f"in its finished alert, {_difference(expected.text, finished.text)}"
    for alert in (opened, finished):
        yield from (f"in its {alert.type}, {wrong}" for wrong in _wrong_fields(_context(stream), alert))


def _of_rings(progress: Progress) -> Iterator[str]:
    """Check that each alert was delivered once, unchanged, and in the order of its part."""
    alerts: dict[_Key, list[ModerationAlert]] = {}
    for alert in progress.alerts:
        alerts.setdefault(_key(alert.message), []).append(alert.message)
    rings: dict[_Key, list[ModerationAlert]] = {}
    for rang in progress.rings:
        rings.setdefault(_key(rang.message), []).append(rang.message)
    for key in alerts | rings:
        raised, rung = alerts.get(key, []), rings.get(key, [])
        if [(each.type, each.id) for each in raised] != [(each.type, each.id) for each in rung]:
            yield f"the webhook rang {_phases(rung)} for {_named(*key)}, not {_phases(raised)}"
        elif raised != rung:
            yield f"what the webhook got is not what was raised for {_named(*key)}"
    yield from (f"the webhook's receiver refused something: {why}" for why in progress.refused)


def _phases(alerts: list[ModerationAlert]) -> str:
    return " and then ".join(alert.type.rpartition(".")[2] for alert in alerts) or "never"


def _of_letters(progress: Progress) -> Iterator[str]:
    wanted = list(_planned(progress.streams))
    for letter in progress.letters:
        name = progress.broken_entries.get(letter.message.entry_id, "(an entry that was in order)")
        found = name, letter.message.reason
        if found in wanted:
            wanted.remove(found)
        else:
            yield f"{name}: an unexpected dead letter came: {found[1]}: {excerpt(letter.message.error, 100)}"
    yield from (
        f"{name}: its broken event is not among the dead letters ({reason})" for name, reason in wanted
    )


def _planned(streams: Iterable[Stream]) -> Iterator[tuple[str, str]]:
    return ((stream.name, reason) for stream in streams for reason in stream.plan.dead_letters)
