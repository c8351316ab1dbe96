"""Test that the verdict finds each violation of honest results, and reports none otherwise."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from chaos.generator import EntryToStore, Response
from chaos.model import expected_of
from chaos.verdict import Ending, Message
from hostile.deliveries import Deliveries
from hostile.entry import ANY, Entry
from hostile.ledger import Place
from hostile.verdict import HONEST_KINDS, HOSTILE_KINDS, KINDS, PROCESS_KINDS, Verdict, quantile
from hostile.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.model import Bad, Early, Event, Silence

NAME = "rtest-0-0"
STREAM = "deltaloom:deltas"
IDS = {
    "response_id": NAME,
    "item_id": f"item_{NAME}_0",
    "kind": "refusal",
    "output_index": 0,
    "content_index": 0,
}
NOTHING: dict[str, Any] = dict.fromkeys(("tenant", "model", "safety_identifier", "traceparent", "rate"))
AT = "1970-01-01T00:16:40Z"
"""The time of the honest entries: 1,000 seconds."""

ENTRIES: list[list[Event | Bad] | Silence | Early] = [
    [{"type": "response.refusal.delta", **IDS, "delta": "no"}],
    [{"type": "keepalive"}],
    [{"type": "response.refusal.done", **IDS, "refusal": "no"}],
]


class Run:
    """The correct outputs of one honest response and one hostile entry."""

    def __init__(self) -> None:
        self.entries = ENTRIES
        self.ids_ms = 1_000_000
        self.victims = Victims()
        self.verdict = Verdict("test", self.victims, late_ms=5000, clock=lambda: 1000.0)
        text = {
            **IDS,
            **NOTHING,
            "id": "text_1",
            "text": "no",
            "status": "completed",
            "reason": None,
            "integrity": "verified",
            "delta_count": 1,
            "duplicate_count": 0,
            "started_at": AT,
            "finished_at": AT,
        }
        self.texts = [Message("1000010-0", text)]
        alert = {**text, "id": "opened_1", "type": "deltaloom.refusal.opened"}
        self.alerts = [
            Message("1000005-0", alert),
            Message("1000010-1", {**alert, "id": "finished_1", "type": "deltaloom.refusal.finished"}),
        ]
        self.letters: list[Message] = []
        self.counts = {"type:keepalive": 1}
        self.entries_added = len(ENTRIES) + 1

    def publish(self, *, warming_up: bool = False) -> None:
        """Store the honest entries and the hostile one."""
        expected = expected_of(self.entries, NAME, {})
        entries = tuple(EntryToStore({"event": json.dumps(each)}, 1) for each in self.entries)
        response = Response(NAME, entries, expected, slow=False)
        self.verdict.warming_up = warming_up
        self.verdict.expect(response)
        for number in range(len(self.entries)):
            self.verdict.stored(NAME, STREAM, f"{self.ids_ms}-{number}")
        self.verdict.ledger.sent("big-arrays", Place(STREAM, "1000001-0"), Entry({b"event": b"[]"}, 1, ANY))

    def end(self) -> dict[str, int]:
        """Deliver all outputs to the verdict and return the violations."""
        verdict = self.verdict
        for message in self.texts:
            verdict.text(message)
        for message in self.alerts:
            verdict.alert(message)
        for message in self.letters:
            verdict.dead_letter(message)
        verdict.end(Ending(self.counts, (), self.entries_added, 0, 0))
        verdict.ledger.end(per_byte=8, per_event=16_384)
        return dict(verdict.violations)


def test_correct_outputs_have_no_violations() -> None:
    """Find no violation, and let strangers repeat the entries of the finished response."""
    run = Run()
    run.publish()
    assert run.end() == {}
    assert run.verdict.times == {True: [], False: [10.0]}
    assert run.verdict.items["text_1"] == (NAME, 0, "refusal:0", "1000010-0")
    over = run.victims.over(random.Random(0))
    assert over is not None
    assert over.name == NAME


def _hostile(run: Run) -> None:
    stranger = {**run.texts[0].fields, "id": "text_2", "response_id": "h.big-arrays.test-1"}
    run.texts.append(Message("1000011-0", stranger, 100))
    run.alerts.append(Message("1000011-0", {**stranger, "type": "deltaloom.refusal.opened"}, 50))
    run.letters.append(Message("1-0", {"stream": STREAM, "entry_id": "1000001-0", "reason": "x"}, 25))


def test_hostile_outputs_are_added_to_their_account() -> None:
    """Add hostile outputs to their generator's account, without violations."""
    run = Run()
    run.publish()
    _hostile(run)
    assert run.end() == {}
    account = run.verdict.ledger.accounts["big-arrays"]
    assert (account.outputs, account.letters, account.stored) == (2, 1, 175)


def test_an_item_with_the_id_of_an_honest_response_is_a_strangers() -> None:
    """Treat an item as hostile if its id equals an honest response's id."""
    run = Run()
    run.publish()
    fields = {**run.texts[0].fields, "id": "text_3", "response_id": None, "item_id": NAME}
    run.texts.append(Message("1000012-0", fields, 100))
    run.verdict.ledger.sent("strangers", Place(STREAM, "1000002-0"), Entry({b"event": b"[]"}, 1, ANY))
    run.entries_added += 1
    assert run.end() == {}
    assert run.verdict.ledger.accounts["strangers"].stored == 100


def test_a_silent_response_may_be_given_up_early() -> None:
    """Accept an abandoned response if too many are open."""
    run = Run()
    run.entries = ENTRIES[:1]
    run.publish()
    given_up = {"status": "abandoned", "reason": "open_limit", "integrity": "unverified"}
    run.texts[0] = _changed(run.texts[0], **given_up)
    run.alerts[1] = _changed(run.alerts[1], **given_up)
    run.counts, run.entries_added = {}, 2
    assert run.end() == {}


def _changed(message: Message, **changes: Any) -> Message:
    return message._replace(fields={**message.fields, **changes})


def _late(run: Run) -> None:
    run.texts[0] = run.texts[0]._replace(id="1006000-0")


def _lost(run: Run) -> None:
    run.texts.clear()
    run.alerts.clear()


def _wrong(run: Run) -> None:
    run.texts[0] = _changed(run.texts[0], text="yes")
    run.alerts[1] = _changed(run.alerts[1], text="yes")


def _doubled(run: Run) -> None:
    run.texts.append(run.texts[0])


def _no_alert(run: Run) -> None:
    del run.alerts[1]


def _twice_opened(run: Run) -> None:
    run.alerts.insert(1, run.alerts[0])


def _honest_letter(run: Run) -> None:
    run.letters.append(Message("1-0", {"stream": STREAM, "entry_id": "1000000-0", "reason": "x"}, 25))


def _long_error(run: Run) -> None:
    run.letters[0] = _changed(run.letters[0], error="x" * 2001)


def _uncounted(run: Run) -> None:
    run.counts = {"type:(other)": 1}


def _one_entry_less(run: Run) -> None:
    run.entries_added -= 1


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (_late, "late text"),
        (_lost, "lost text"),
        (_wrong, "wrong text"),
        (_doubled, "doubled text"),
        (_no_alert, "missing alert"),
        (_twice_opened, "doubled alert"),
        (_honest_letter, "unknown dead letter"),
        (_long_error, "long error"),
        (_uncounted, "uncounted type"),
        (_one_entry_less, "unaccounted"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Run], None], kind: str) -> None:
    """Find exactly the planted violation, among hostile outputs."""
    run = Run()
    run.publish()
    _hostile(run)
    plant(run)
    assert run.end() == {kind: 1}


def test_times_are_compared_with_those_of_the_warm_up() -> None:
    """Allow four times the latency of the warm-up, with a minimum."""

    def slow(before: float, under_load: float) -> bool:
        verdict = Run().verdict
        verdict.times = {True: [before] * 100, False: [under_load] * 100}
        verdict.judge_times(slowdown=4, floor_ms=50)
        return verdict.violations["slow texts"] == 1

    assert not slow(before=100, under_load=400)
    assert slow(before=100, under_load=401)
    assert not slow(before=1, under_load=200)
    silent = Run().verdict
    silent.times[True] = [1.0]
    silent.judge_times(slowdown=4, floor_ms=50)
    assert silent.violations == {"slow texts": 1}
    assert slow(before=1, under_load=201)


def test_a_time_is_put_to_the_phase_in_which_the_text_was_closed() -> None:
    """Assign a latency to the phase in which its closing was stored, not by entry id."""
    run = Run()
    run.publish(warming_up=True)
    run.verdict.warming_up = False
    run.end()
    assert run.verdict.times == {True: [10.0], False: []}


def test_a_probe_that_is_not_noticed() -> None:
    """Report a missing spike and a missing count of the probe."""
    verdict = Run().verdict
    verdict.judge_probe("m", {"type:probe": 4}, {"type:probe": 5})
    assert verdict.violations == {"missing spike": 1, "uncounted type": 1}


def test_a_probe_that_is_noticed() -> None:
    """Accept the spike of the probe, and ignore the end of a spike."""
    verdict = Run().verdict
    for kind in ("deltaloom.refusal.spike.ended", "deltaloom.refusal.spike"):
        verdict.alert(Message("1-0", {**NOTHING, "type": kind, "id": kind, "rate": {"name": "m"}}))
    verdict.judge_probe("m", {"type:probe": 5}, {"type:probe": 5})
    assert verdict.spikes == {"m": 1}
    assert not verdict.violations


def test_an_item_has_its_own_text_or_an_earlier_strangers() -> None:
    """Accept another text in an honest item only if a stranger with the same id was finished earlier."""

    def is_wrong(*shown: str, stranger_came: str = "1000009-9") -> bool:
        run = Run()
        bare = {**run.texts[0].fields, "id": "text_2", "response_id": None, "item_id": NAME}
        run.verdict.text(Message(stranger_came, bare))
        run.publish()
        run.end()
        run.verdict.judge_item("text_1", [json.dumps({"id": each}).encode() for each in shown])
        return run.verdict.violations["wrong item"] == 1

    assert not is_wrong("text_1")
    assert not is_wrong("text_2")
    assert is_wrong("text_2", stranger_came="1000010-1")
    assert is_wrong("text_3")
    assert is_wrong()


def test_an_entry_from_the_future_has_the_time_at_which_it_came() -> None:
    """Expect the time of arrival for an entry with an id in the future."""

    def is_wrong(at: str) -> bool:
        run = Run()
        run.ids_ms = 9_000_000
        run.texts[0] = Message("1000010-0", {**run.texts[0].fields, "started_at": at, "finished_at": at})
        run.publish()
        return "wrong text" in run.end()

    assert not is_wrong(AT)
    assert is_wrong("1970-01-01T01:00:00Z")


def test_a_count_may_miss_events_before_its_name_was_kept() -> None:
    """Accept a small number of events under "(other)", counted before the type's name was kept."""

    def missing(counted: int, others: str) -> bool:
        verdict = Run().verdict
        verdict.spikes["m"] = 1
        counts = {"type:probe": counted, others: 20_000 - counted}
        verdict.judge_probe("m", counts, {"type:probe": 50})
        return verdict.violations["uncounted type"] == 1

    assert not missing(50, "type:(other)")
    assert not missing(30, "type:(other)")
    assert missing(29, "type:(other)")
    assert missing(30, "type:more")
    assert missing(51, "type:(other)")


def test_only_so_many_types_and_fields_are_counted_by_name() -> None:
    """Limit the names of counted types and fields, with one more for the others."""

    def too_many(name: str, number: int) -> bool:
        verdict = Run().verdict
        verdict.judge_counts(
            {"late": 1, "parts_beyond_limit": 9, **dict.fromkeys(map(name.format, range(number)), 1)}
        )
        return verdict.violations["too many counts"] == 1

    assert not too_many("type:t{}", 1001)
    assert too_many("type:t{}", 1002)
    assert not too_many("left_out:error:f{}", 201)
    assert too_many("left_out:error:f{}", 202)


def test_a_response_with_too_many_parts_has_one_letter_about_that() -> None:
    """Report a second dead letter about too many parts of one response."""

    def letter(error: str, response_id: str) -> Message:
        entry = json.dumps({"event": "{}", "response_id": response_id})
        fields = {"stream": STREAM, "entry_id": "1-0", "reason": "oversized", "error": error, "entry": entry}
        return Message("1-0", fields)

    crowd = "this response has more than 512 parts; events of further parts are counted as parts_beyond_limit"
    verdict = Run().verdict
    for each in (
        letter(crowd, "h.a"),
        letter(crowd, "h.b"),
        letter("too large", "h.a"),
        letter("too large", "h.a"),
    ):
        verdict.dead_letter(each)
    assert not verdict.violations
    verdict.dead_letter(letter(crowd, "h.a"))
    assert verdict.violations == {"doubled letter": 1}


def test_each_honest_alert_arrives_once_and_in_time() -> None:
    """Report honest alerts that are late, doubled or lost, and ignore hostile ones."""
    violations: list[str] = []
    now = [100.0]
    deliveries = Deliveries(
        lambda kind, _example: violations.append(kind),
        lambda fields: fields["response_id"] == NAME,
        {"a": 90.0, "b": 90.0, "c": 99.0},
        late=30,
        clock=lambda: now[0],
    )
    alerts = {name: {**IDS, "id": name, "type": "deltaloom.refusal.opened"} for name in "abc"}
    for alert in alerts.values():
        deliveries.raised(alert)
    assert deliveries.missing == 3
    deliveries.attempt(alerts["a"], taken=True)
    deliveries.attempt(alerts["a"], taken=True)
    now[0] = 121.0
    deliveries.attempt(alerts["b"], taken=True)
    stranger = {**alerts["a"], "id": "h", "response_id": "h.x"}
    deliveries.raised({**stranger, "id": "i"})
    deliveries.attempt(stranger, taken=True)
    deliveries.attempt(stranger, taken=True)
    deliveries.end()
    assert sorted(violations) == ["doubled delivery", "late delivery", "lost delivery"]
    assert (deliveries.missing, deliveries.hostile) == (1, 2)


def test_quantiles() -> None:
    """Return the nearest-rank quantile, or None without values."""
    assert quantile([]) is None
    assert quantile([1.0]) == 1
    assert quantile([float(n) for n in range(1, 101)]) == 99
    assert quantile([float(n) for n in range(1, 201)], 0.5) == 100


def test_every_kind_is_in_one_section() -> None:
    """Assign each kind of violation to exactly one section of the report."""
    assert len(set(KINDS)) == len(KINDS) == len(HONEST_KINDS) + len(HOSTILE_KINDS) + len(PROCESS_KINDS)
