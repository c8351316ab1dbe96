"""Honest results, held against what must come out, and how long each took. Pure.

What is hostile goes to the ledger. An output belongs to whoever's its response id is or, where it has none,
its item id: strangers may choose an honest response's id as that of an item, and that text is theirs.
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
"""Everything that can be found wrong."""

QUANTILE = 0.99

_SAME_MS = 1000
"""Clocks differ by less."""

_CROWDED = "this response has more than "
"""How the error of that letter begins."""


class Item(NamedTuple):
    """The place of a finished text: its owner's id, its output index, and the field of that hash."""

    owner: str
    output_index: int
    field: str
    came: str
    """The id of the text's entry."""


class Verdict(chaos.Verdict):
    """Collects violations, by kind: how many, and the first examples."""

    def __init__(
        self,
        seed: str,
        victims: Victims,
        *,
        widest_gap_ms: float = float("inf"),
        late_ms: float = float("inf"),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing.

        Args:
            seed: of the honest responses; their names say it.
            victims: are told of honest responses that begin, and of those that are over.
            widest_gap_ms: see `chaos.verdict.Verdict`.
            late_ms: no text may take longer.
            clock: says the time in seconds since 1970, as the server's clock does.
        """
        super().__init__(widest_gap_ms=widest_gap_ms)
        self.ledger = Ledger(self.violate)
        self.warming_up = True
        self.times: dict[bool, list[float]] = {True: [], False: []}
        """Milliseconds that texts took, by whether they were closed while warming up."""
        self.spikes: Counter[str] = Counter()
        """Spikes that were raised, by the model."""
        self.added: dict[str, float] = {}
        """The times at which honest alerts were added to their stream, in seconds since 1970."""
        self.items: dict[str, Item] = {}
        """Where honest texts are to be looked up, by their ids."""
        self._late_ms = late_ms
        self._victims = victims
        self._clock = clock
        self._honest = f"r{seed}-"
        self._published: dict[tuple[str, int], tuple[float, bool]] = {}
        """When entries were stored, and if while warming up, by the response and the time in their id; ..."""
        self._came: dict[tuple[str, int], tuple[float, bool]] = {}
        """... and by their number in the response: behind an id of the future many have the same time."""
        self._whole: dict[str, Response] = {}
        self._strangers: dict[str, str] = {}
        """Texts of bare items that bear an honest response's id, and the ids of their entries."""
        self._crowded: set[tuple[str, str]] = set()
        """Responses, by their stream and id, of which a dead letter says that they have too many parts."""

    def is_honest(self, fields: Mapping[str, Any]) -> bool:
        """Return whether a message is about an honest response."""
        response_id, item_id = fields.get("response_id"), fields.get("item_id")
        if response_id is not None:
            return str(response_id).startswith(self._honest)
        return str(item_id).startswith(f"item_{self._honest}")

    # ------------------------------------------------------------------------------ what goes in

    def expect(self, response: Response) -> None:
        """Expect what must come of a response that is about to be stored."""
        super().expect(response)
        self._victims.begins(response)
        self._whole[response.name] = response

    def stored(self, name: str, stream: str, entry_id: str, at_ms: int | None = None) -> None:
        """Note that the next entry of a response is stored, now at the latest, whatever its id says."""
        ms = int(entry_id.partition("-")[0])
        at_ms = min(ms, round(self._clock() * 1000)) if at_ms is None else at_ms
        self._published[name, ms] = (at_ms, self.warming_up)
        self._came[name, len(self._responses[name].ids_ms)] = (at_ms, self.warming_up)
        super().stored(name, stream, entry_id, at_ms)

    # ---------------------------------------------------------------------------- what comes out

    def text(self, message: Message) -> None:
        """Take an entry of the stream of finished texts."""
        if self.is_honest(message.fields):
            super().text(_given_up(message))
        else:
            self._output(message)

    def alert(self, message: Message) -> None:
        """Take an entry of the stream of alerts."""
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
        """Take a dead letter; whose it is shows at the end, when all entries are known."""
        error = message.fields.get("error", "")
        if len(error) > limits.LETTER_ERROR:
            of = f"{message.id}: {len(error):,} characters; at most {limits.LETTER_ERROR:,}"
            self.violate("long error", f"the dead letter {of}")
        place = Place(message.fields["stream"], message.fields["entry_id"])
        self.ledger.letter(place, message.size)
        if error.startswith(_CROWDED):
            self._judge_crowd(place, message)

    def _judge_crowd(self, place: Place, message: Message) -> None:
        """Look whether the letter about a response with too many parts is its only one."""
        owner = json.loads(message.fields["entry"]).get("response_id")
        if not isinstance(owner, str):
            return
        if (place.stream, owner) in self._crowded:
            self.violate("doubled letter", f"{owner!a} has too many parts: {message.id} says so again")
        self._crowded.add((place.stream, owner))

    # ---------------------------------------------------------------------------------- compared

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
        """Return whether a time is one of these entries'; one from the future may say any since it came."""
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
        """Return whether an entry's id is of a time that was still to come."""
        return bool(response.ids_ms[entry] > self._came[response.response.name, entry][0])

    def _judge_time(self, name: str, took: float) -> None:
        if took > self._late_ms:
            self.violate("late text", f"{name} came {took:,.0f} ms after the entry that closes it")

    def judge_times(self, *, slowdown: float, floor_ms: float) -> None:
        """Compare how long texts took beside hostile load with how long they took without it."""
        before, beside = quantile(self.times[True]), quantile(self.times[False])
        if before is None:
            return
        if beside is None:
            self.violate("slow texts", "none came that was closed beside hostile load")
            return
        allowed = slowdown * max(before, floor_ms)
        if beside > allowed:
            self.violate(
                "slow texts",
                f"p99 {beside:,.0f} ms, and {before:,.0f} ms without hostile load; at most {allowed:,.0f} ms",
            )

    def judge_probe(self, model: str, counts: Mapping[str, int], types: Mapping[str, int]) -> None:
        """Look for what must come of the probe: a spike of its model, and counts of its types."""
        if not self.spikes[model]:
            self.violate("missing spike", f"{model}: all its responses were refused, and no spike was raised")
        for name, count in types.items():
            self._judge_count(name, count, counts)
            if counts.get(name, 0) > count:
                self.violate("uncounted type", f"{name}: {count} published, {counts[name]} counted")

    def judge_item(self, text_id: str, shown: Iterable[bytes]) -> None:
        """Look for an honest text among those that are shown at its place.

        The contract lets the text of a bare item with a response's id stand there if it was finished first.
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
        """Look how many names a partition counts by: strangers choose them."""
        kinds = Counter(name.partition(":")[0] for name in counts if ":" in name)
        for kind, most in (("type", limits.TYPES), ("left_out", limits.FIELDS)):
            if kinds[kind] > most + 1:  # all further ones are one more
                self.violate("too many counts", f"{kinds[kind]} of {kind}; at most {most}", kind)

    def _forget_if_complete(self, name: str) -> None:
        super()._forget_if_complete(name)
        if name not in self._responses and name in self._whole:
            self._victims.is_over(self._whole.pop(name))

    def _account(self, ending: chaos.Ending) -> None:
        """Compare the accounts: entries sent and stored, and honest events of unknown types."""
        sent = self.totals["entries"] + self.totals["probes"] + self.ledger.entries
        if ending.entries_added != sent:
            self.violate("unaccounted", f"{sent} entries published, {ending.entries_added} in the stream")
        for name, count in self.totals.items():
            if name.startswith("type:"):
                self._judge_count(name, count, ending.counts)

    def _judge_count(self, name: str, published: int, counts: Mapping[str, int]) -> None:
        """Compare a count with what was published; the others have what came before its name was kept."""
        of_all = sum(count for each, count in counts.items() if each.startswith("type:"))
        may_miss = of_all // limits.TYPES if limits.OTHER_TYPES in counts else 0
        counted = counts.get(name, 0)
        if counted < published - may_miss:
            self.violate(
                "uncounted type",
                f"{name}: {published} published, {counted} counted; at most {may_miss} may be missing",
            )


def _given_up(message: Message) -> Message:
    """Return a message as if what was given up for being one too many had been given up for being silent.

    With many responses open, those that are silent go early. Of honest ones only those are that never end.
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
