"""Comparison of the outputs with the expectations. Pure: callers report all entries.

An expectation is kept until it is fulfilled; then only a hash stays, to detect repeats. So a run can have
millions of events.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from chaos.model import ExpectedStop, PartId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.generator import Response
    from chaos.model import ExpectedText

EXAMPLES = 3
"""Maximum number of examples of each kind of violation, and of each of its variants."""

CONTEXT = ("tenant", "model", "safety_identifier", "traceparent")

KINDS = (
    "lost text",
    "wrong text",
    "doubled text",
    "unknown text",
    "missing alert",
    "wrong alert",
    "doubled alert",
    "finished before opened",
    "lost delivery",
    "unknown delivery",
    "delivery out of order",
    "missing dead letter",
    "unknown dead letter",
    "unaccounted",
    "wrong metric",
    "key left behind",
    "not settled",
    "worker died",
)
"""Kinds of violations."""


class Message(NamedTuple):
    """An entry of an output stream."""

    id: str
    fields: Mapping[str, Any]
    size: int = 0
    """Total bytes of its fields, as they are stored."""


class Leftover(NamedTuple):
    """A key at the end of a run: its name, and whether it expires."""

    name: str
    expires: bool


class Ending(NamedTuple):
    """The stored state at the end of a run."""

    counts: Mapping[str, int]
    keys: tuple[Leftover, ...]
    entries_added: int
    pending: int
    unread: int | None


@dataclass(slots=True)
class _Part:
    """A part with expectations that are not fulfilled yet."""

    response: str
    expected: ExpectedText
    text: Message | None = None
    compared: bool = False
    opened: bool = False
    finished: bool = False


@dataclass(slots=True)
class _Response:
    """A response with expectations that are not fulfilled yet."""

    response: Response
    parts: int
    letters: Counter[tuple[int, str]]
    ids_ms: list[int] = field(default_factory=list)
    owners: dict[int, set[str | None]] = field(default_factory=dict)
    """Owners of texts by entry number: None for the response, or item ids if there is no response id."""
    latest_ms: dict[str | None, int] = field(default_factory=dict)
    """Time of each owner's latest entry, in milliseconds."""
    stored: bool = False


class Verdict:
    """The collected violations: their counts by kind, and the first examples."""

    def __init__(self, *, widest_gap_ms: float = float("inf")) -> None:
        """Begin without expectations.

        Args:
            widest_gap_ms: maximum gap between two entries of a response (or of an item without a response
                id). After a longer gap, which a delayed producer may cause, the response may have been
                abandoned rightly: it is only counted as unclear.
        """
        self.violations: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.totals: Counter[str] = Counter()
        self.unclear: set[tuple[str, str | None]] = set()
        self._sorts: Counter[tuple[str, str]] = Counter()
        self._widest_gap_ms = widest_gap_ms
        self._responses: dict[str, _Response] = {}
        self._parts: dict[PartId, _Part] = {}
        self._stops: dict[ExpectedStop, str] = {}
        self._entries: dict[tuple[str, str], tuple[str, int]] = {}
        """Response and entry number of each entry with expected dead letters, by stream and id."""
        self._early: dict[tuple[str, str], list[Message]] = {}
        """Dead letters of entries that are not known to be stored yet, by stream and id."""
        self._may_be_contradicted: set[int] = set()
        self._unexpected_contradictions: list[tuple[PartId, str]] = []
        """Part and alert id of each contradiction that the input does not explain.

        It is no violation if the response is unclear, which is certain only when all entries are stored.
        """
        self._complete: set[int] = set()
        self._ids: set[int] = set()

    @property
    def outstanding(self) -> int:
        """Return the number of parts with expectations that are not fulfilled yet."""
        return len(self._parts)

    def violate(self, kind: str, example: str, sort: str = "") -> None:
        """Count a violation, with an example; `sort` is its variant, which has examples of its own."""
        self.violations[kind] += 1
        self._sorts[kind, sort] += 1
        if self._sorts[kind, sort] <= EXAMPLES:
            self.examples.setdefault(kind, []).append(example)

    # ------------------------------------------------------------------------------ input

    def expect(self, response: Response) -> None:
        """Add the expectations of a response that is about to be stored."""
        expected = response.expected
        letters = Counter(expected.letters)
        known = self._responses[response.name] = _Response(response, len(expected.texts), letters)
        for text in expected.texts:
            self._parts[text.part] = _Part(response.name, text)
            for number in (*text.entries, text.closed_by):
                if number is not None:
                    known.owners.setdefault(number, set()).add(text.part.item_id)
        self._stops.update(expected.stops)
        self._may_be_contradicted.update(map(hash, expected.contradicted))
        totals = self.totals
        totals["responses"] += 1
        totals["entries"] += len(response.entries)
        totals["events"] += response.events
        totals["texts"] += len(expected.texts)
        totals["refusals"] += sum(text.part.kind == "refusal" for text in expected.texts)
        totals["deltas"] += expected.fragments
        totals["closings"] += expected.closings
        totals["dead letters"] += sum(expected.letters.values())
        for name, count in expected.types.items():
            totals[f"type:{name}"] += count

    def stored(self, name: str, stream: str, entry_id: str, at_ms: int | None = None) -> None:
        """Note that the next entry of a response is stored, at `at_ms` or else at the time of its id."""
        response = self._responses[name]
        ms = int(entry_id.partition("-")[0])
        at_ms = ms if at_ms is None else at_ms
        number = len(response.ids_ms)
        self._expect_letters(response, number, (stream, entry_id))
        for owner in response.owners.get(number, ()):
            if at_ms - response.latest_ms.get(owner, at_ms) > self._widest_gap_ms:
                self.unclear.add((name, owner))
            response.latest_ms[owner] = at_ms
        response.ids_ms.append(ms)
        if len(response.ids_ms) == len(response.response.entries):
            response.stored = True
            for text in response.response.expected.texts:
                self._complete_if_all_there(text.part)
            self._forget_if_complete(name)

    # ------------------------------------------------------------------------------ outputs

    def text(self, message: Message) -> None:
        """Check an entry of the stream of finished texts."""
        fields = message.fields
        self.totals["texts out"] += 1
        self.totals["deltas out"] += fields["delta_count"] + fields["duplicate_count"]
        key = part_of(fields)
        identity = hash(fields["id"])
        part = self._parts.get(key)
        if identity in self._ids:
            self.violate("doubled text", f"{named(key)} came again as {message.id}")
        elif part is None:
            self.violate("unknown text", f"{named(key)} ({message.id}): {_shown(fields)}")
        else:
            part.text = message
        self._ids.add(identity)
        if part is not None:
            self._complete_if_all_there(key)

    def alert(self, message: Message) -> None:
        """Check an entry of the stream of alerts."""
        fields = message.fields
        self.totals["alerts out"] += 1
        if fields["type"].startswith("deltaloom.response."):
            self._stop(message)
            return
        key = part_of(fields)
        if fields["type"] == "deltaloom.text.contradicted":
            self._contradiction(key, message)
            return
        opened = fields["type"] == "deltaloom.refusal.opened"
        part = self._parts.get(key)
        if part is None or key.kind != "refusal":
            kind = "doubled alert" if hash(key) in self._complete else "wrong alert"
            self.violate(kind, f"{fields['type']} of {named(key)} ({message.id})")
            return
        if part.opened if opened else part.finished:
            self.violate("doubled alert", f"{fields['type']} of {named(key)} again ({message.id})")
            return
        if opened:
            part.opened = True
        else:
            part.finished = True
            if not part.opened:
                self.violate("finished before opened", f"{named(key)} ({message.id})")
            self._compare_alert(part, message)
        self._complete_if_all_there(key)

    def _contradiction(self, key: PartId, message: Message) -> None:
        """Check an alert about a contradiction: some event has another text, and it comes once per part."""
        self.totals["contradictions"] += 1
        identity = hash(message.fields["id"])
        if identity in self._ids:
            self.violate("doubled alert", f"contradicted {named(key)} again ({message.id})")
        elif hash(key) not in self._may_be_contradicted:
            self._unexpected_contradictions.append((key, message.id))
        self._ids.add(identity)

    def _stop(self, message: Message) -> None:
        """Check an alert about the end of a response."""
        fields = message.fields
        response_id = fields.get("response_id")
        stop = ExpectedStop(fields["type"], response_id, None if response_id else fields.get("item_id"))
        reason = self._stops.pop(stop, None)
        if reason is None:
            kind = "doubled alert" if hash(stop) in self._complete else "wrong alert"
            self.violate(kind, f"{stop.type} of {response_id or stop.item_id} ({message.id})")
        elif fields["reason"] != reason:
            self.violate("wrong alert", f"{stop.type} of {response_id}: {fields['reason']!r}, not {reason!r}")
        self._complete.add(hash(stop))

    def dead_letter(self, message: Message) -> None:
        """Check a dead letter: its entry must be one with an expected dead letter."""
        fields = message.fields
        self.totals["dead letters out"] += 1
        entry = (fields["stream"], fields["entry_id"])
        if entry not in self._entries:
            self._early.setdefault(entry, []).append(message)
            return
        name, number = self._entries[entry]
        response, letter = self._responses.get(name), (number, fields["reason"])
        if response is None or not response.letters[letter]:
            self._unknown_letter(message)
            return
        response.letters[letter] -= 1
        self._forget_if_complete(name)

    def _expect_letters(self, response: _Response, number: int, entry: tuple[str, str]) -> None:
        if any(each == number for each, _ in response.letters):
            self._entries[entry] = (response.response.name, number)
            for message in self._early.pop(entry, ()):
                self.totals["dead letters out"] -= 1
                self.dead_letter(message)

    def _unknown_letter(self, message: Message) -> None:
        fields = message.fields
        example = f"{fields['reason']} of {fields['entry_id']}: {fields['error']} ({message.id})"
        self.violate("unknown dead letter", example)

    def end(self, ending: Ending) -> None:
        """Report unfulfilled expectations as violations, when all processing has ended."""
        for part in self._parts.values():
            if not self._is_unclear(part):
                self._missing(part)
        self._check_contradictions()
        for stop in self._stops:
            self.violate("missing alert", f"{stop.type} of {stop.response_id or stop.item_id}")
        for name, response in self._responses.items():
            for (number, reason), count in (+response.letters).items():
                self.violate("missing dead letter", f"{name}/{number}: {reason}, {count} of it")
        for letter in chain.from_iterable(self._early.values()):
            self._unknown_letter(letter)
        self._account(ending)
        for leftover in ending.keys:
            if not leftover.expires:
                self.violate("key left behind", leftover.name)
        if ending.pending or ending.unread:
            self.violate("not settled", f"{ending.pending} entries pending, {ending.unread} unread")

    def _check_contradictions(self) -> None:
        """Report unexpected contradictions, except those of unclear responses and items."""
        unclear = {each for owner in self.unclear for each in owner}
        for key, alert_id in self._unexpected_contradictions:
            if (key.response_id or key.item_id) not in unclear:
                self.violate("wrong alert", f"contradicted {named(key)} ({alert_id})")

    # ------------------------------------------------------------------------------ comparison

    def _is_unclear(self, part: _Part) -> bool:
        return (part.response, part.expected.part.item_id) in self.unclear

    def _compare(self, part: _Part, message: Message) -> None:
        """Compare a text with its expectation.

        All entries must be stored, so that it is known to be clear.
        """
        expected, fields = part.expected, message.fields
        part.compared = True
        if self._is_unclear(part):
            return
        wrong = [
            f"{name} is {fields.get(name)!r}, not {value!r}"
            for name, value in (
                ("text", expected.text),
                ("status", expected.status),
                ("reason", expected.reason),
                ("integrity", expected.integrity),
                ("item_id", expected.item_id),
                *((name, expected.context.get(name)) for name in CONTEXT),
            )
            if fields.get(name) != value
        ]
        # While a worker is stuck, a later event may close a text that is certain: late repeats then count.
        if fields["delta_count"] + fields["duplicate_count"] > expected.fragments + expected.late:
            wrong.append(
                f"{fields['delta_count']} + {fields['duplicate_count']} deltas of {expected.fragments}"
            )
        if wrong:
            sort = ",".join(each.partition(" ")[0] for each in wrong)
            self.violate(
                "wrong text", f"{named(part.expected.part)} ({message.id}): {'; '.join(wrong)}", sort
            )

    def _compare_alert(self, part: _Part, message: Message) -> None:
        text = part.text
        if text is None:
            self.violate("wrong alert", f"{named(part.expected.part)} ({message.id}) came before its text")
            return
        names = ("text", "status", "reason", "integrity", "item_id", *CONTEXT)
        wrong = [name for name in names if message.fields.get(name) != text.fields.get(name)]
        if wrong:
            self.violate(
                "wrong alert",
                f"{named(part.expected.part)} ({message.id}): {', '.join(wrong)} unlike its text",
            )

    def _missing(self, part: _Part) -> None:
        name, expected = named(part.expected.part), part.expected
        if part.text is None:
            self.violate("lost text", f"{name}: {expected.status}, {expected.text[:60]!r}")
        elif expected.part.kind == "refusal":
            alerts = (("opened", part.opened), ("finished", part.finished))
            missing = [alert for alert, there in alerts if not there]
            if missing:
                self.violate("missing alert", f"{name}: {', '.join(missing)}")

    def _account(self, ending: Ending) -> None:
        """Check sums: entries, deltas in texts and late ones, contradictions, and events of unknown types."""
        counts, totals = dict(ending.counts), self.totals
        if ending.entries_added != totals["entries"]:
            self.violate(
                "unaccounted", f"{totals['entries']} entries published, {ending.entries_added} in the stream"
            )
        late = counts.pop("late", 0)
        totals["late"] = late
        if counts.pop("contradicted", 0) != totals["contradictions"]:
            self.violate("unaccounted", f"{totals['contradictions']} contradictions raised, others counted")
        if totals["deltas"] != totals["deltas out"] + late:
            self.violate(
                "unaccounted",
                f"{totals['deltas']} deltas published; {totals['deltas out']} in texts, {late} late: "
                f"{totals['deltas'] - totals['deltas out'] - late} are missing",
            )
        for name in sorted({name for name in (*counts, *totals) if name.startswith("type:")} | set(counts)):
            if counts.get(name, 0) != totals[name]:
                self.violate(
                    "unaccounted", f"{name}: {totals[name]} published, {counts.get(name, 0)} counted"
                )

    def _complete_if_all_there(self, key: PartId) -> None:
        part = self._parts.get(key)
        if part is None or part.text is None:
            return
        response = self._responses[part.response]
        if not response.stored:
            return
        if not part.compared:
            self._compare(part, part.text)
        if key.kind == "refusal" and not (part.opened and part.finished):
            return
        self._compare_times(part, response)
        del self._parts[key]
        self._complete.add(hash(key))
        response.parts -= 1
        self._forget_if_complete(part.response)

    def _compare_times(self, part: _Part, response: _Response) -> None:
        if part.text is None or self._is_unclear(part):
            return
        expected, fields = part.expected, part.text.fields
        started, finished = ms_of(fields["started_at"]), ms_of(fields["finished_at"])
        if not self._is_time_of(response, expected.entries, started):
            self.violate(
                "wrong text", f"{named(expected.part)}: started_at is not the time of an entry that opened it"
            )
        closed_by = expected.closed_by
        if closed_by is not None and not self._is_time_of(
            response, range(closed_by, len(response.ids_ms)), finished
        ):
            self.violate(
                "wrong text",
                f"{named(expected.part)}: finished_at is not the time of an entry that closed it",
            )

    def _is_time_of(self, response: _Response, entries: Iterable[int], ms: int) -> bool:
        """Return whether a time is that of one of these entries of a response."""
        return any(response.ids_ms[number] == ms for number in entries)

    def _forget_if_complete(self, name: str) -> None:
        response = self._responses.get(name)
        if response and response.stored and response.parts == 0 and not +response.letters:
            del self._responses[name]


def part_of(fields: Mapping[str, Any]) -> PartId:
    """Return the part of a message."""
    response_id = fields.get("response_id")
    item_id = None if response_id is not None else fields.get("item_id")
    return PartId(response_id, item_id, fields["output_index"], fields["content_index"], fields["kind"])


def named(part: PartId) -> str:
    """Return a readable name of a part."""
    owner = part.response_id if part.response_id is not None else part.item_id
    return f"{owner} {part.kind} {part.output_index}.{part.content_index}"


def _shown(fields: Mapping[str, Any]) -> str:
    return f"{fields.get('status')}, {fields.get('integrity')}, {fields['text'][:60]!r}"


def ms_of(time: str) -> int:
    """Return a message's time in milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)
