"""Show what a worker would make of published events, without Redis.

The events go through the pipeline of a worker, with its settings and handlers, into storage in memory.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.text import Text

from deltaloom.messages import AssembledText, DeadLetter
from handlers.core.effects import TRUNCATED
from handlers.core.response import IDLE_TIMEOUT
from service import logs
from service.apps.handler_table import routing_table
from service.bus.envelope import open_entry
from service.cli.dry_storage import DryStorage, ResponseOver
from service.cli.entries import fallback_in_words
from service.cli.output import (
    INTEGRITY_STYLES,
    SEVERITY_STYLES,
    STATUS_STYLES,
    console,
    facts,
    indented,
    kind_name,
    labelled,
    paragraph,
    plural,
    styled,
    write_json,
)
from service.handler_packages import disabled_kinds
from service.keys import LEFT_OUT
from service.pipeline.processing import BatchProcessor
from service.ports.storage import RawEntry
from service.retrying import RetryUntilAvailable
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from deltaloom.messages import ModerationAlert
    from handlers.core.effects import ContextValues
    from service.cli.event_source import PackedEntry
    from service.cli.recording import Recording
    from service.settings import Settings

_BATCH = 500
"""Maximum entries that are processed at once."""
_BATCH_BYTES = 8 * 1024 * 1024
_INDENT = 4
_TYPE = "type:"
_COUNTS = {
    "late": "deltas after their text was finished",
    "set_aside": "responses that cannot be written",
}


class DryRun:
    """Takes entries in place of the input, and prints what a worker would write.

    Args:
        settings: the settings of the worker.
        fields: context of all responses, which goes before that of their events.
        as_json: True to print JSON lines.
        with_text: True to print texts, explanations and the events of dead letters.
    """

    def __init__(
        self, settings: Settings, fields: Mapping[str, str], *, as_json: bool, with_text: bool
    ) -> None:
        self._fields = fields
        self._source = settings.prefix
        self._as_json = as_json
        self._with_text = with_text
        self._target = console()
        self._storage = DryStorage(settings)
        self._processor = BatchProcessor(
            self._storage,
            routing_table(settings),
            settings.names.all[0],
            settings,
            RetryUntilAvailable(),
            open_entry,
        )
        self._kinds_off = disabled_kinds(settings.handlers)
        self._runner = asyncio.Runner()
        self._ms = time.time_ns() // 1_000_000
        self._entries: list[RawEntry] = []
        self._held = 0
        self._sequence = 0
        self._shown: str | None = None
        """Id of the response whose lines were printed last."""
        self._responses: dict[str, None] = {}
        self._written: Counter[str] = Counter()
        self.events = 0
        self.recording: Recording | None = None
        """The translated recording; None if the events are published unchanged."""

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the event loop."""
        self._runner.close()

    def see(self, *, broken: bool) -> None:
        """Do nothing: a broken event becomes a dead letter."""

    def add(self, entry: PackedEntry, context: Mapping[str, str] | None = None) -> None:
        """Process an entry, with its context, after those before it."""
        self._responses[entry.response_id] = None
        known = {**(context or {}), **self._fields, "response_id": entry.response_id}
        fields = [each.encode() for pair in known.items() for each in pair]
        self._entries.append(
            RawEntry(f"{self._ms}-{self._sequence}".encode(), [b"event", entry.body, *fields])
        )
        self._sequence += 1
        self._held += len(entry.body)
        self.events += entry.events
        if len(self._entries) >= _BATCH or self._held >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Process all entries, and print their outputs."""
        entries, self._entries, self._held = self._entries, [], 0
        if entries:
            self._runner.run(self._process(entries))
        self._print_outputs()

    async def _process(self, entries: list[RawEntry]) -> None:
        with logs.silent():
            if entries:
                await self._processor.process(self._processor.builder(entries))
            await self._processor.sweep()

    def report(self, *, interrupted: bool = False) -> None:
        """Give up all open responses, and print the rest of the output."""
        self.flush()
        self._storage.is_at_end = True
        self._runner.run(self._process([]))
        self._print_outputs()
        dialects = self.recording.dialects if self.recording else []
        left_out, without_effect = self._left_out(), self._without_effect()
        if self._as_json:
            names = ("text", "alert", "dead_letter")
            summary = {
                "what": "summary",
                "interrupted": interrupted,
                "translated_from": dialects,
                "events": self.events,
                "responses": len(self._responses),
                **{f"{name}s": self._written[name] for name in names},
                "left_out": left_out,
                "without_effect": without_effect,
                "kinds_off": list(self._kinds_off),
            }
            write_json(json.dumps(summary, ensure_ascii=False))
            return
        if self._shown is not None:
            self._target.print()
        told = [
            plural(self.events, "event"),
            f"translated from {', '.join(dialects)}" if dialects else "not translated",
            plural(len(self._responses), "response"),
            plural(self._written["text"], "text"),
            plural(self._written["alert"], "alert"),
            plural(self._written["dead_letter"], "dead letter"),
        ]
        self._target.print(Text("interrupted: ", style="yellow") if interrupted else "", facts(told), sep="")
        for what, times in left_out.items():
            often = f", {times:,} times" if times > 1 else ""
            self._target.print(Text(f"left out: {visible(what)}{often}"))
        if without_effect:
            each = (f"{name} ({times:,})" for name, times in without_effect.items())
            self._target.print(Text(f"without effect: {visible(', '.join(each))}"))
        if self._kinds_off:
            off = visible(", ".join(self._kinds_off))
            self._target.print(
                Text(f"not rebuilt by these settings: {off}; see DELTALOOM_HANDLERS", style="dim")
            )
        self._target.print(Text("nothing was published", style="dim"))

    def _left_out(self) -> dict[str, int]:
        """Return the number of things that were left out, by what they are and why."""
        found = dict(self.recording.left_out) if self.recording else {}
        if self.recording and self.recording.is_cut:
            found["responses after the first: --response-id names only one"] = 1
        for name, times in self._storage.counts.items():
            if not times:
                continue
            if name.startswith(_TYPE):
                continue
            if name.startswith(LEFT_OUT):
                event_type, _, field = name.removeprefix(LEFT_OUT).rpartition(":")
                what = f"field {field} of {event_type}: not valid"
            elif name.startswith(TRUNCATED):
                what = f"{name.removeprefix(TRUNCATED)}: too long"
            else:
                what = _COUNTS.get(name, name)
            found[what] = found.get(what, 0) + times
        return found

    def _without_effect(self) -> dict[str, int]:
        """Return the number of events without a handler or an effect, by type."""
        found = {name: times for name, times in self._storage.counts.items() if name.startswith(_TYPE)}
        return {name.removeprefix(_TYPE): times for name, times in sorted(found.items())}

    def _print_outputs(self) -> None:
        outputs, self._storage.outputs = self._storage.outputs, []
        for output in outputs:
            if isinstance(output, ResponseOver):
                self._print_end(output)
            elif isinstance(output, AssembledText):
                self._written["text"] += 1
                self._print_text(output)
            elif isinstance(output, DeadLetter):
                self._written["dead_letter"] += 1
                self._print_letter(output)
            else:
                self._written["alert"] += 1
                self._print_alert(output)

    def _head(self, name: str, of: AssembledText | ModerationAlert | ContextValues) -> None:
        """Print the id and context of the response whose lines follow, unless it was printed last."""
        if self._shown == name:
            return
        if self._shown is not None:
            self._target.print()
        self._shown = name
        self._target.print(Text(visible(name), style="bold"))
        context = (
            of.model,
            labelled("tenant", of.tenant),
            labelled("provider", of.provider),
            labelled("dialect", of.dialect),
            labelled("provider's id", of.upstream_response_id),
            labelled("reference", of.reference),
        )
        if any(context):
            self._target.print(indented(facts(context)))

    def _line(self, *values: object) -> None:
        self._target.print(indented(facts(values)))

    def _print_text(self, text: AssembledText) -> None:
        if self._as_json:
            self._print_json("text", text.model_dump(mode="json"), len(text.text))
            return
        self._head(text.response_id or text.item_id or "", text)
        self._line(
            kind_name(text.kind),
            styled(text.status, STATUS_STYLES),
            text.reason,
            styled(text.integrity, INTEGRITY_STYLES),
            labelled("by", text.integrity_source),
            plural(text.delta_count, "delta"),
            plural(text.duplicate_count, "repeat") if text.duplicate_count else None,
            plural(len(text.text), "character"),
            f"{text.output_index}:{text.content_index}",
            labelled("item", text.item_id),
        )
        self._print_words(text.text, text.provider_explanation)

    def _print_alert(self, alert: ModerationAlert) -> None:
        if self._as_json:
            self._print_json("alert", alert.model_dump(mode="json"), len(alert.text))
            return
        self._head(alert.response_id or alert.item_id or "", alert)
        self._line(
            Text("ALERT", style="bold"),
            alert.type.removeprefix("deltaloom.").replace(".", " "),
            styled(alert.severity, SEVERITY_STYLES),
            styled(alert.status, STATUS_STYLES),
            alert.reason,
            alert.reason_class,
            alert.provider_category,
            styled(alert.integrity, INTEGRITY_STYLES),
            alert.fallback and fallback_in_words(alert.fallback),
        )
        self._print_words(alert.text, alert.provider_explanation)

    def _print_letter(self, letter: DeadLetter) -> None:
        if self._as_json:
            self._print_json("dead_letter", letter.model_dump(mode="json"), 0)
            return
        self._line(Text("DEAD LETTER", style="bold red"), letter.reason, letter.error)
        self._print_words(letter.entry)

    def _print_end(self, over: ResponseOver) -> None:
        name, ending = over.stream_key.value, over.ending
        status, reason = ("abandoned", IDLE_TIMEOUT) if ending is None else (ending.status, ending.reason)
        if self._as_json:
            end = {"what": "response", "response_id": name, "status": status, "reason": reason}
            write_json(json.dumps(end, ensure_ascii=False))
            return
        self._head(name, over.context)
        text = None if over.has_text else "no text"
        self._line("ended", styled(status, STATUS_STYLES), reason, text)

    def _print_words(self, *words: str | None) -> None:
        for each in words if self._with_text else ():
            if each:
                self._target.print(paragraph(self._target, each, indent=_INDENT))

    def _print_json(self, what: str, message: dict[str, Any], characters: int) -> None:
        message["source"] = self._source
        if not self._with_text:
            for name in {"text", "provider_explanation", "entry"} & message.keys():
                message[name] = None
        line = {
            "what": what,
            **({"characters": characters} if what != "dead_letter" else {}),
            "message": message,
        }
        write_json(json.dumps(line, ensure_ascii=False))
