"""Format entries of the public streams for people and as JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from deltaloom.messages import AssembledText, DeadLetter, Delivery
from service.alert_parsing import parse_alert
from service.cli.output import (
    INDENT,
    INTEGRITY_STYLES,
    OUTCOME_STYLES,
    SEVERITY_STYLES,
    STATUS_STYLES,
    fact,
    facts,
    indented,
    kind_name,
    labelled,
    paragraph,
    plural,
    styled,
)
from service.cli.partitions import SEPARATOR
from service.field_json import values_of
from service.visible import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rich.console import Console, RenderableType

    from deltaloom.messages import ModelFallback, ModerationAlert, PartMessage, RefusalRate

Fields = dict[bytes, bytes]

UNLIMITED = 2**63

_DETAIL_CHARACTERS = 60

_MAX_EVENTS = 100
"""Maximum number of an entry's events that are shown."""

_MAX_BRACKETS = 1000
"""Maximum brackets in JSON that is pretty-printed; with nesting, the output could grow quadratically."""


def clock_time(at: datetime) -> str:
    """Return the local time of day."""
    return at.astimezone().strftime("%H:%M:%S")


def message_json(_entry_id: str, fields: Fields) -> str:
    """Return the JSON message of an entry of `assembled`, `alerts` or `deliveries`, unchanged.

    Raises:
        ValueError: the entry has no message.
    """
    if b"__data__" not in fields:
        raise ValueError("it has no field __data__")
    return fields[b"__data__"].decode("utf-8")


def fields_json(entry_id: str, fields: Fields) -> str:
    """Return an input entry as JSON: id and fields; a value that is not UTF-8 becomes `{"base64": "…"}`."""
    shown = values_of(fields)
    return json.dumps({"id": entry_id, "fields": shown}, ensure_ascii=False)


def letter_json(entry_id: str, fields: Fields) -> str:
    """Return a dead letter and its id as JSON."""
    letter = letter_of(fields).model_dump(mode="json")
    return json.dumps({"id": entry_id, **letter}, ensure_ascii=False)


def letter_of(fields: Fields) -> DeadLetter:
    """Return the dead letter in an entry.

    Raises:
        ValueError: the entry is not a dead letter; another program wrote it.
    """
    return DeadLetter.model_validate({name.decode(): value.decode() for name, value in fields.items()})


def text_of(target: Console, message: AssembledText, *, response: bool = True) -> RenderableType:
    """Format a finished text; omit the response's id and context if `response` is false."""
    title = facts(
        (
            Text(clock_time(message.finished_at), style="dim"),
            kind_name(message.kind),
            styled(message.status, STATUS_STYLES),
            message.reason,
            styled(message.integrity, INTEGRITY_STYLES),
            plural(message.delta_count, "delta"),
            plural(message.duplicate_count, "repeat") if message.duplicate_count else None,
        )
    )
    identity = _identity(message) if response else _place(message)
    return Group(title, identity, paragraph(target, message.text), "")


def text_line(target: Console, entry_id: str, fields: Fields) -> RenderableType:
    """Format an entry of `assembled`.

    Raises:
        ValueError: the entry is not a finished text; another program wrote it.
    """
    return text_of(target, AssembledText.model_validate_json(message_json(entry_id, fields)))


def alert_line(target: Console, entry_id: str, fields: Fields) -> RenderableType:
    """Format an entry of `alerts`.

    Raises:
        ValueError: the entry is not an alert; another program wrote it.
    """
    return alert_of(target, parse_alert(message_json(entry_id, fields)).alert)


def alert_of(target: Console, message: ModerationAlert) -> RenderableType:
    """Format a moderation alert."""
    title = facts(
        (
            Text(clock_time(message.raised_at), style="dim"),
            styled(message.severity, SEVERITY_STYLES),
            Text(visible(message.type.removeprefix("deltaloom.").replace(".", " ")), style="bold"),
            styled(message.status, STATUS_STYLES),
            message.reason,
            message.reason_class,
            message.provider_category,
            styled(message.integrity, INTEGRITY_STYLES),
        )
    )
    said = message.text if message.rate is None else rate_in_words(message.rate)
    if message.fallback is not None:
        said = fallback_in_words(message.fallback)
    words = [paragraph(target, each) for each in (said, message.provider_explanation) if each]
    return Group(title, _identity(message), *words, "")


def delivery_line(target: Console, entry_id: str, fields: Fields) -> RenderableType:
    """Format an entry of `deliveries`.

    Raises:
        ValueError: the entry is not a delivery; another program wrote it.
    """
    delivery = Delivery.model_validate_json(message_json(entry_id, fields))
    ended_at = delivery.raised_at + timedelta(milliseconds=delivery.latency_ms)
    title = facts(
        (
            Text(clock_time(ended_at), style="dim"),
            Text(visible(delivery.destination), style="bold"),
            styled(delivery.outcome, OUTCOME_STYLES),
            f"after {delivery.latency_ms:,} ms",
            plural(delivery.attempts, "attempt"),
            styled(delivery.severity, SEVERITY_STYLES),
            delivery.category,
            labelled("rule", delivery.rule),
            labelled("route", delivery.route),
        )
    )
    about = facts(
        (
            delivery.response_id,
            delivery.alert_type and delivery.alert_type.removeprefix("deltaloom."),
            delivery.alert_id,
            labelled("digest", delivery.digest_id),
        )
    )
    return Group(title, indented(about), paragraph(target, delivery.answer), "")


def rate_in_words(rate: RefusalRate) -> str:
    """Return a rate in words: `40 of 100 refused (40.0%), before 12 of 2,400 (0.5%)`, then any blocked."""
    blocked = f"; blocked {rate.blocked:,}, before {rate.baseline_blocked:,}"
    return (
        f"{rate.refused:,} of {rate.responses:,} refused ({rate.share:.1%}), "
        f"before {rate.baseline_refused:,} of {rate.baseline_responses:,} ({rate.baseline_share:.1%})"
    ) + (blocked if rate.blocked or rate.baseline_blocked else "")


def fallback_in_words(fallback: ModelFallback) -> str:
    """Return a change of the model in words: `b answered in place of a: refusal`."""
    before, after = fallback.from_model or "the first", fallback.to_model or "another model"
    models = f"{after} answered in place of {before}"
    return f"{models}: {fallback.trigger}" if fallback.trigger else models


def _identity(message: PartMessage | ModerationAlert) -> RenderableType:
    return indented(
        facts(
            (
                message.response_id,
                message.item_id,
                _index(message),
                message.model,
                _provider(message),
                labelled("tenant", message.tenant),
                labelled("safety id", message.safety_identifier),
                labelled("request", message.reference),
            )
        )
    )


def _provider(message: PartMessage | ModerationAlert) -> Text | None:
    known = [each for each in (message.provider, message.upstream_provider) if each]
    return labelled("provider", " → ".join(known)) if known else None


def _place(message: PartMessage) -> RenderableType:
    return indented(facts((message.item_id, _index(message))))


def _index(message: PartMessage | ModerationAlert) -> Text | None:
    """Return the position of the part in its response; None for an alert that is not about a single part."""
    if message.output_index is None:
        return None
    return Text(f"{message.output_index}:{message.content_index}")


def letter_line(target: Console, entry_id: str, fields: Fields) -> RenderableType:
    """Format a dead letter in short."""
    letter = letter_of(fields)
    title = facts(
        (
            Text(clock_time(letter.failed_at), style="dim"),
            Text(visible(letter.reason), style="red"),
            entry_id,
            labelled("entry", letter.entry_id),
            plural(letter.deliveries, "delivery", "deliveries") if letter.deliveries > 1 else None,
        )
    )
    return Group(title, paragraph(target, letter.error), "")


def entry_in_full(target: Console, entry: str) -> RenderableType:
    """Format the original fields of a dead letter, with pretty-printed JSON."""
    rows: list[RenderableType] = []
    for name, value in json.loads(entry).items():
        rows.append(Text(fact(name), style="bold"))
        rows.append(paragraph(target, _laid_out(value) if isinstance(value, str) else json.dumps(value)))
    return Group(*rows)


def _laid_out(value: str) -> str:
    if value.count("[") + value.count("{") > _MAX_BRACKETS:
        return value
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return value


def input_of(target: Console, entry_id: str, fields: Fields) -> RenderableType:
    """Format an input entry, with a line for each of its events."""
    from service.bus.envelope import open_entry
    from service.pipeline.decode import UnreadableError, events_of, producer_context_of

    lines: list[Text] = []
    said: list[Text | None] = []
    try:
        entry = open_entry(entry_id.rpartition(SEPARATOR)[2].encode(), fields)
        origin = producer_context_of(entry)
        said = [labelled(name, value) for name, value in origin.context.pairs()]
        said.insert(0, None if origin.response_id is None else Text(visible(origin.response_id)))
        slots = events_of(entry, UNLIMITED, UNLIMITED)
        lines.extend(
            _unreadable(slot.why.error) if slot.why else _event(slot.value) for slot in slots[:_MAX_EVENTS]
        )
        if len(slots) > _MAX_EVENTS:
            lines.append(Text(f"{len(slots) - _MAX_EVENTS:,} more events", style="dim"))
    except UnreadableError as error:
        lines.append(_unreadable(error.why.error))
    margin = Text(" " * INDENT)
    rows = [margin + line for line in lines]
    for row in rows:
        row.no_wrap = True
        row.overflow = "ellipsis"
        row.truncate(target.width, overflow="ellipsis")
    return Group(facts((Text(entry_id, style="dim"), *said)), *rows)


def _unreadable(error: str) -> Text:
    return Text(fact(error), style="red")


def _event(event: Mapping[str, Any]) -> Text:
    detail = next(
        (event[name] for name in ("delta", "refusal", "text") if isinstance(event.get(name), str)), None
    )
    number = event.get("sequence_number")
    place = ":".join(
        str(event[name])
        for name in ("output_index", "content_index", "summary_index")
        if isinstance(event.get(name), int)
    )
    return facts(
        (
            Text(fact(event["type"]), style="bold"),
            None if number is None else Text(fact(f"#{number}"), style="dim"),
            Text(place, style="dim"),
            None if detail is None else Text(f"“{visible(shortened(detail, _DETAIL_CHARACTERS + 1))}”"),
        ),
    )
