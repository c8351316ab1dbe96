"""Test that the verdict finds each kind of violation, and reports none without one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from chaos.generator import TAG, EntryToStore, Response
from chaos.model import Bad, Event, expected_of
from chaos.verdict import KINDS, Ending, Leftover, Message, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = {
    "response_id": "r1",
    "item_id": "item_0",
    "kind": "refusal",
    "output_index": 0,
    "content_index": 0,
}
NOTHING: dict[str, None] = dict.fromkeys(("tenant", "model", "safety_identifier", "traceparent"))
AT = "1970-01-01T00:00:01Z"

ENTRIES: list[list[Event | Bad]] = [
    [
        {
            "type": "response.refusal.delta",
            "item_id": "item_0",
            "output_index": 0,
            "content_index": 0,
            "delta": "no",
        }
    ],
    [{"type": "keepalive"}],
    [Bad("{", "malformed_json")],
    [
        {
            "type": "response.refusal.done",
            "item_id": "item_0",
            "output_index": 0,
            "content_index": 0,
            "refusal": "no",
        }
    ],
]


class Outputs:
    """The correct outputs of a response with a refusal, a keepalive and a broken entry."""

    def __init__(self) -> None:
        self.texts: list[dict[str, Any]] = [
            {
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
        ]
        shared = {**IDS, **NOTHING, "text": "no"}
        self.alerts: list[dict[str, Any]] = [
            {**shared, "type": "deltaloom.refusal.opened"},
            {
                **shared,
                "type": "deltaloom.refusal.finished",
                "status": "completed",
                "reason": None,
                "integrity": "verified",
            },
        ]
        self.letters = [{"reason": "malformed_json", "error": "why", "stream": "in", "entry_id": "1000-2"}]
        self.counts = {"type:keepalive": 1}
        self.keys: list[Leftover] = [Leftover("deltaloom:state:response:r1", expires=True)]
        self.entries_added = 4
        self.pending = 0


def judged(change: Callable[[Outputs], object], *, early: bool = False) -> Counter[str]:
    """Return the violations that the verdict finds after this change of the outputs.

    With `early`, dead letters are seen before their producer knows that their entry is stored.
    """
    outputs = Outputs()
    change(outputs)
    entries = tuple(EntryToStore({TAG: f"r1/{n}"}, len(events)) for n, events in enumerate(ENTRIES))
    response = Response("r1", entries, expected_of(ENTRIES, "r1", {}), slow=False)
    verdict = Verdict()

    def send_letters() -> None:
        for fields in outputs.letters:
            verdict.dead_letter(Message("1-1", fields))

    verdict.expect(response)
    if early:
        send_letters()
    for number in range(len(ENTRIES)):
        verdict.stored("r1", "in", f"1000-{number}")
    if not early:
        send_letters()
    for fields in outputs.alerts[:1]:
        verdict.alert(Message("1-1", fields))
    for fields in outputs.texts:
        verdict.text(Message("1-1", fields))
    for fields in outputs.alerts[1:]:
        verdict.alert(Message("1-1", fields))
    ending = Ending(outputs.counts, tuple(outputs.keys), outputs.entries_added, outputs.pending, 0)
    verdict.end(ending)
    return verdict.violations


def test_correct_outputs_have_no_violations() -> None:
    """Find no violation in correct outputs."""
    assert judged(lambda _: None) == Counter()
    assert judged(lambda _: None, early=True) == Counter()


def with_field(name: str, value: object) -> Callable[[Outputs], object]:
    """Return a change of one field of the text."""
    return lambda outputs: outputs.texts[0].update({name: value})


WRONGS: list[tuple[str, Callable[[Outputs], object]]] = [
    ("lost text", lambda o: o.texts.clear()),
    ("wrong text", with_field("text", "yes")),
    ("wrong text", with_field("status", "failed")),
    ("wrong text", with_field("reason", "boom")),
    ("wrong text", with_field("integrity", "repaired")),
    ("wrong text", with_field("item_id", "item_1")),
    ("wrong text", with_field("model", "gpt")),
    ("wrong text", with_field("started_at", "1970-01-01T00:00:02Z")),
    ("wrong text", with_field("finished_at", "1970-01-01T00:00:02Z")),
    ("doubled text", lambda o: o.texts.append(o.texts[0])),
    ("unknown text", with_field("content_index", 7)),
    ("missing alert", lambda o: o.alerts.pop()),
    ("missing alert", lambda o: o.alerts.pop(0)),
    ("wrong alert", lambda o: o.alerts[1].update(text="yes")),
    ("wrong alert", lambda o: o.alerts[1].update(response_id="r2")),
    ("doubled alert", lambda o: o.alerts.append(o.alerts[1])),
    ("doubled alert", lambda o: o.alerts.insert(0, o.alerts[0])),
    ("finished before opened", lambda o: o.alerts.pop(0)),
    ("missing dead letter", lambda o: o.letters.clear()),
    ("unknown dead letter", lambda o: o.letters.append(o.letters[0])),
    ("unknown dead letter", lambda o: o.letters[0].update(reason="max_deliveries")),
    ("unknown dead letter", lambda o: o.letters[0].update(entry_id="1000-9")),
    ("unknown dead letter", lambda o: o.letters[0].update(stream="another")),
    ("unaccounted", with_field("delta_count", 0)),
    ("unaccounted", lambda o: o.counts.clear()),
    ("unaccounted", lambda o: o.counts.update(late=1)),
    ("unaccounted", lambda o: o.counts.update(lost=1)),
    ("unaccounted", lambda o: setattr(o, "entries_added", 5)),
    ("key left behind", lambda o: o.keys.append(Leftover("deltaloom:log:x", expires=False))),
    ("not settled", lambda o: setattr(o, "pending", 1)),
]


@pytest.mark.parametrize(
    ("kind", "change"), WRONGS, ids=[f"{kind} {n}" for n, (kind, _) in enumerate(WRONGS)]
)
def test_each_violation_is_found(kind: str, change: Callable[[Outputs], object]) -> None:
    """Find each kind of violation."""
    assert judged(change)[kind] > 0
    assert judged(change, early=True)[kind] > 0


def test_every_kind_of_violation_is_tested() -> None:
    """Include all kinds of violations in the tests."""
    elsewhere = {"worker died", "wrong metric", "lost delivery", "unknown delivery", "delivery out of order"}
    assert {kind for kind, _ in WRONGS} | elsewhere == set(KINDS)


FILTERED: list[list[Event | Bad]] = [
    [{"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}]
]
STOP = {
    "type": "deltaloom.response.filtered",
    "response_id": "r1",
    "item_id": None,
    "reason": "content_filter",
}


@pytest.mark.parametrize(
    ("alerts", "kind"),
    [
        ([STOP], None),
        ([], "missing alert"),
        ([STOP, STOP], "doubled alert"),
        ([STOP | {"reason": "other"}], "wrong alert"),
        ([STOP, STOP | {"response_id": "r2"}], "wrong alert"),
        ([STOP, STOP | {"type": "deltaloom.response.blocked"}], "wrong alert"),
    ],
)
def test_alerts_about_the_end_of_a_response(alerts: list[dict[str, Any]], kind: str | None) -> None:
    """Find a missing, doubled or wrong alert about a response's end."""
    verdict = Verdict()
    entries = (EntryToStore({TAG: "r1/0"}, 1),)
    verdict.expect(Response("r1", entries, expected_of(FILTERED, "r1", {}), slow=False))
    verdict.stored("r1", "in", "1000-0")
    for fields in alerts:
        verdict.alert(Message("1-1", fields))
    verdict.end(Ending({}, (), 1, 0, 0))
    assert set(verdict.violations) == ({kind} if kind else set())


REFUSAL = {"item_id": "item_0", "output_index": 0, "content_index": 0}
TOLD_APART_BY_ITEM: list[list[Event | Bad]] = [
    [{"type": "response.refusal.delta", "delta": "no", **REFUSAL}],
    [{"type": "response.refusal.delta", "delta": "go on", **REFUSAL, "item_id": "item_1"}],
    [{"type": "response.refusal.done", "refusal": "no", **REFUSAL}],
]
"""A response without an id, in which `item_0` is silent while `item_1` continues."""


@pytest.mark.parametrize(("second_ms", "third_ms", "unclear"), [(900, 1800, True), (400, 800, False)])
def test_items_without_a_response_id_idle_separately(second_ms: int, third_ms: int, *, unclear: bool) -> None:
    """Measure idle time by item if there is no response id. Otherwise correct texts would be reported."""
    expected = expected_of(TOLD_APART_BY_ITEM, None, {})
    entries = tuple(EntryToStore({TAG: f"r1/{n}"}, 1) for n in range(3))
    verdict = Verdict(widest_gap_ms=1000)
    verdict.expect(Response("r1", entries, expected, slow=True))
    given_up = {**IDS, **NOTHING, "response_id": None, "text": "no", "delta_count": 1, "duplicate_count": 0}
    given_up |= {"id": "t", "status": "abandoned", "reason": "idle_timeout", "integrity": "unverified"}
    given_up |= {"started_at": AT, "finished_at": AT}
    verdict.stored("r1", "in", "0-1")
    verdict.stored("r1", "in", f"{second_ms}-0")
    verdict.text(Message("1-1", given_up))
    verdict.stored("r1", "in", f"{third_ms}-0")
    assert verdict.violations["wrong text"] == (0 if unclear else 1)
    assert verdict.unclear == ({("r1", "item_0")} if unclear else set())


@pytest.mark.parametrize("response_id", [None, "r1"])
@pytest.mark.parametrize(("silent_ms", "unclear"), [(1800, True), (800, False)])
def test_an_abandoned_text_may_be_contradicted(
    response_id: str | None, silent_ms: int, *, unclear: bool
) -> None:
    """Accept a contradiction of an unclear response, also before its last entry is known to be stored."""
    expected = expected_of([TOLD_APART_BY_ITEM[0], TOLD_APART_BY_ITEM[2]], response_id, {})
    verdict = Verdict(widest_gap_ms=1000)
    entries = tuple(EntryToStore({TAG: f"r1/{n}"}, 1) for n in range(2))
    verdict.expect(Response("r1", entries, expected, slow=True))
    verdict.stored("r1", "in", "1-0")
    contradicted = {"id": "c", "type": "deltaloom.text.contradicted", **IDS, "response_id": response_id}
    verdict.alert(Message("1-1", contradicted))
    verdict.stored("r1", "in", f"{silent_ms}-0")
    verdict.end(Ending({}, (), 2, 0, 0))
    assert verdict.violations["wrong alert"] == (0 if unclear else 1)
