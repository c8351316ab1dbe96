"""Comparison of honest results with expectations, and of their times with limits. Pure.

Hostile outputs go to the ledger. The owner of an output is its response id or, if there is none, its item id.
Hostile producers may use an honest response's id as an item id; such a text is hostile.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from chaos import verdict as chaos
from hostile import limits
from hostile.entry import generator_of
from hostile.ledger import Ledger, Place
from hostile.probe import is_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.generator import Response
    from chaos.verdict import Message
    from hostile.victims import Victims

HONEST_KINDS = (
    "lost text",
    "wrong text",
    "doubled text",
    "unknown text",
    "late text",
    "slow texts",
    "wrong item",
    "missing alert",
    "wrong alert",
    "doubled alert",
    "finished before opened",
    "lost delivery",
    "unknown delivery",
    "doubled delivery",
    "late delivery",
    "delivery out of order",
    "missing spike",
    "uncounted type",
)
HOSTILE_KINDS = (
    "lost entry",
    "unknown dead letter",
    "long error",
    "unaccounted",
    "stored too much",
    "doubled letter",
    "too many counts",
    "key left behind",
    "not settled",
)
PROCESS_KINDS = (
    "memory",
    "slow command",
    "too many open",
    "worker died",
    "complaint",
    "slow stop",
    "raw characters",
    "long line",
    "not tried again",
)
KINDS = (*HONEST_KINDS, *HOSTILE_KINDS, *PROCESS_KINDS)
"""Kinds of violations."""

QUANTILE = 0.99

_SAME_MS = 1000
"""Maximum difference between the clocks, in milliseconds."""

_CROWDED = "this response has more "
"""Beginning of the error of a dead letter about too many parts."""


class Item(NamedTuple):
    """The place of a finished text: its owner's id, its output index, and its field in the item's hash."""

    owner: str
    output_index: int
    field: str
    came: str
    """Id of the text's entry."""


class Verdict(chaos.Verdict):
    """The collected violations: their counts by kind, and the first examples."""

    def __init__(
        self,
        seed: str,
        victims: Victims,
        *,
        widest_gap_ms: float = float("inf"),
        late_ms: float = float("inf"),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin without expectations.

        Args:
            seed: seed of the honest responses, which is part of their names.
            victims: receives honest responses that begin, and those that are over.
            widest_gap_ms: see `chaos.verdict.Verdict`.
            late_ms: maximum milliseconds for a text.
            clock: returns the time in seconds since 1970, like the server's clock.
        """
        super().__init__(widest_gap_ms=widest_gap_ms)
        self.ledger = Ledger(self.violate)
        self.warming_up = True
        self.times: dict[bool, list[float]] = {True: [], False: []}
        """Milliseconds that texts took; the key is True for texts that were closed during the warm-up."""
        self.spikes: Counter[str] = Counter()
        """Number of raised spikes by model."""
        self.added: dict[str, float] = {}
        """Times at which honest alerts were added to their stream, in seconds since 1970."""
        self.items: dict[str, Item] = {}
        """Items with honest texts, by the texts' ids."""
        self._late_ms = late_ms
        self._victims = victims
        self._clock = clock
        self._honest = f"r{seed}-"
        self._published: dict[tuple[str, int], tuple[float, bool]] = {}
        """Time and phase in which entries were stored, by response and time in the entry's id."""
        self._came: dict[tuple[str, int], tuple[float, bool]] = {}
        """The same by response and entry number, since many ids have one time after an id of the future."""
        self._whole: dict[str, Response] = {}
        self._strangers: dict[str, str] = {}
        """Entry ids of hostile texts of items with an honest response's id, by the texts' ids."""
        self._crowded: set[tuple[str, str]] = set()
        """Responses, by stream and id, with a dead letter about too many parts."""

    def is_honest(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a message is about an honest response."""
        response_id, item_id = fields.get("response_id"), fields.get("item_id")
        if response_id is not None:
            return str(response_id).startswith(self._honest)
        return str(item_id).startswith(f"item_{self._honest}")

    # ------------------------------------------------------------------------------ input

    def expect(self, response: Response) -> None:
        """Add the expectations of a response that is about to be stored."""
        super().expect(response)
        self._victims.begins(response)
        self._whole[response.name] = response

    def stored(self, name: str, stream: str, entry_id: str, at_ms: int | None = None) -> None:
        """Note that the next entry of a response is stored now, or earlier if its id has an earlier time."""
        ms = int(entry_id.partition("-")[0])
        at_ms = min(ms, round(self._clock() * 1000)) if at_ms is None else at_ms
        self._published[name, ms] = (at_ms, self.warming_up)
        self._came[name, len(self._responses[name].ids_ms)] = (at_ms, self.warming_up)
        super().stored(name, stream, entry_id, at_ms)

    # ------------------------------------------------------------------------------ outputs

    def text(self, message: Message) -> None:
        """Check an entry of the stream of finished texts."""
        if self.is_honest(message.fields):
            super().text(_given_up(message))
        else:
            self._output(message)

    def alert(self, message: Message) -> None:
        """Check an entry of the stream of alerts."""
        rate = message.fields.get("rate")
        if rate is not None:
            self.spikes[rate["name"]] += message.fields["type"] == "deltaloom.refusal.spike"
        elif self.is_honest(message.fields):
            self.added.setdefault(message.fields["id"], int(message.id.partition("-")[0]) / 1000)
            super().alert(_given_up(message))
        else:
            self._output(message)

    def _output(self, message: Message) -> None:
        fields = message.fields
        response_id, item_id = fields.get("response_id"), fields.get("item_id")
        if is_probe(response_id):
            return
        owner = response_id if response_id is not None else item_id
        generator = generator_of(owner)
        if generator is None and response_id is None and str(item_id).startswith(self._honest):
            generator = "strangers"
            self._strangers[fields["id"]] = message.id
        if generator is None:
            self.ledger.output("(nobody's)", message.size)
        else:
            self.ledger.output(generator, message.size)

    def dead_letter(self, message: Message) -> None:
        """Note a dead letter. Its owner is found at the end, when all entries are known."""
        error = message.fields.get("error", "")
        if len(error) > limits.LETTER_ERROR:
            of = f"{message.id}: {len(error):,} characters; at most {limits.LETTER_ERROR:,}"
            self.violate("long error", f"the dead letter {of}")
        place = Place(message.fields["stream"], message.fields["entry_id"])
        self.ledger.letter(place, message.size)
        if error.startswith(_CROWDED):
            self._judge_crowd(place, message)

    def _judge_crowd(self, place: Place, message: Message) -> None:
        """Check that a response has only one dead letter about too many parts."""
        owner = json.loads(message.fields["entry"]).get("response_id")
        if not isinstance(owner, str):
            return
        if (place.stream, owner) in self._crowded:
            self.violate(
                "doubled letter", f"{owner!a} has too many parts: {message.id} repeats the dead letter"
            )
        self._crowded.add((place.stream, owner))

    # ------------------------------------------------------------------------------ comparison

    def _compare_times(self, part: Any, response: Any) -> None:
        super()._compare_times(part, response)
        text, expected = part.text, part.expected
        named = expected.part
        field = f"{named.kind}:{named.content_index}"
        owner = named.response_id or named.item_id
        self.items[text.fields["id"]] = Item(owner, named.output_index, field, text.id)
        if expected.closed_by is None or self._is_unclear(part):
            return
        published = self._published.get((part.response, chaos.ms_of(text.fields["finished_at"])))
        if published is None and self._is_ahead(response, expected.closed_by):
            published = self._came[part.response, expected.closed_by]
        if published is not None:
            published_ms, warming_up = published
            took = max(0.0, int(text.id.partition("-")[0]) - published_ms)
            self.times[warming_up].append(took)
            self._judge_time(chaos.named(named), took)

    def _is_time_of(self, response: Any, entries: Iterable[int], ms: int) -> bool:
        """Return whether a time is that of one of these entries.

        For an entry with an id of the future, any time since it was stored is right.
        """
        entries = list(entries)
        if super()._is_time_of(response, entries, ms):
            return True
        now_ms = self._clock() * 1000
        return any(
            self._came[response.response.name, entry][0] - _SAME_MS <= ms <= now_ms + _SAME_MS
            for entry in entries
            if self._is_ahead(response, entry)
        )

    def _is_ahead(self, response: Any, entry: int) -> bool:
        """Return whether an entry's id has a time that was in the future."""
        return bool(response.ids_ms[entry] > self._came[response.response.name, entry][0])

    def _judge_time(self, name: str, took: float) -> None:
        if took > self._late_ms:
            self.violate("late text", f"{name} came {took:,.0f} ms after the entry that closes it")

    def judge_times(self, *, slowdown: float, floor_ms: float) -> None:
        """Compare the times of texts with and without hostile load."""
        before, loaded = quantile(self.times[True]), quantile(self.times[False])
        if before is None:
            return
        if loaded is None:
            self.violate("slow texts", "no text came that was closed under hostile load")
            return
        allowed = slowdown * max(before, floor_ms)
        if loaded > allowed:
            self.violate(
                "slow texts",
                f"p99 {loaded:,.0f} ms, and {before:,.0f} ms without hostile load; at most {allowed:,.0f} ms",
            )

    def judge_probe(self, model: str, counts: Mapping[str, int], types: Mapping[str, int]) -> None:
        """Check the outputs of the probe: a spike of its model, and counts of its types."""
        if not self.spikes[model]:
            self.violate("missing spike", f"{model}: all its responses were refused, but no spike was raised")
        for name, count in types.items():
            self._judge_count(name, count, counts)
            if counts.get(name, 0) > count:
                self.violate("uncounted type", f"{name}: {count} published, {counts[name]} counted")

    def judge_item(self, text_id: str, shown: Iterable[bytes]) -> None:
        """Check that an honest text is among those in its item.

        The contract allows the text of an item without a response, but with a response's id, if it was
        finished first.
        """
        item = self.items[text_id]
        for each in shown:
            other = json.loads(each)["id"]
            if other == text_id:
                return
            if other in self._strangers and _numbers(self._strangers[other]) < _numbers(item.came):
                self.totals["items of strangers"] += 1
                return
        self.violate("wrong item", f"{item.owner} {item.output_index} {item.field} is not {text_id}")

    def judge_counts(self, counts: Mapping[str, int]) -> None:
        """Check the number of names that a partition counts by, since hostile producers choose them."""
        kinds = Counter(name.partition(":")[0] for name in counts if ":" in name)
        for kind, most in (("type", limits.TYPES), ("left_out", limits.FIELDS)):
            if kinds[kind] > most + 1:  # further names share one more
                self.violate("too many counts", f"{kinds[kind]} of {kind}; at most {most}", kind)

    def _forget_if_complete(self, name: str) -> None:
        super()._forget_if_complete(name)
        if name not in self._responses and name in self._whole:
            self._victims.is_over(self._whole.pop(name))

    def _account(self, ending: chaos.Ending) -> None:
        """Compare sums: stored entries, and honest events of unknown types."""
        sent = self.totals["entries"] + self.totals["probes"] + self.ledger.entries
        if ending.entries_added != sent:
            self.violate("unaccounted", f"{sent} entries published, {ending.entries_added} in the stream")
        for name, count in self.totals.items():
            if name.startswith("type:"):
                self._judge_count(name, count, ending.counts)

    def _judge_count(self, name: str, published: int, counts: Mapping[str, int]) -> None:
        """Compare a count with the number published. Events before its name was kept count as "other"."""
        of_all = sum(count for each, count in counts.items() if each.startswith("type:"))
        may_miss = of_all // limits.TYPES if limits.OTHER_TYPES in counts else 0
        counted = counts.get(name, 0)
        if counted < published - may_miss:
            self.violate(
                "uncounted type",
                f"{name}: {published} published, {counted} counted; at most {may_miss} may be missing",
            )


def _given_up(message: Message) -> Message:
    """Return the message with the reason `idle_timeout` in place of `open_limit`.

    Silent responses are abandoned early if many are open. Only honest ones without an end are silent.
    """
    if message.fields.get("reason") != "open_limit":
        return message
    return message._replace(fields={**message.fields, "reason": "idle_timeout"})


def _numbers(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))


def quantile(values: Sequence[float], share: float = QUANTILE) -> float | None:
    """Return the value that this share of all values does not exceed; None if there are none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
