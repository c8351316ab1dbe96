"""Test the plan that settle.lua executes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from deltaloom import ModerationAlert, StreamNames
from handlers.core.assembly import Assembly
from handlers.core.effects import ContextValues
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.outputs import assembled_text, time_of
from handlers.core.response import FinishedPart
from handlers.core.text import text_digest
from service.keys import Keys
from service.ports.storage import ResponseOutcome, Settlement, TextToWrite
from service.settings import Settings
from service.storage.buckets import BASELINE_STEPS, NAME_LENGTH, WINDOW_STEPS
from service.storage.records import entry_of, entry_of_alert, stamped
from service.storage.settle_plan import OVER_MS, plan_settlements
from tests.packed import unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import AlertType

KEYS = Keys(StreamNames("t"))
KEY = StreamKey("response", "resp_1")
PART = PartKey(KEY, 2, 1, "refusal")
SETTINGS = Settings(spike_window=100, spike_baseline=2400)
WINDOW_MS, BASELINE_MS = 100_000 // WINDOW_STEPS, 2_400_000 // BASELINE_STEPS


class Call:
    """A call whose keys are found by the numbers in its plan."""

    def __init__(self, *settlements: Settlement, settings: Settings = SETTINGS) -> None:
        self.call = plan_settlements(settlements, "replication_id", KEYS, settings)
        plan, *self.entries = self.call.args
        self.plan: dict[str, Any] = msgspec.msgpack.decode(plan)
        self.settlements: list[dict[str, Any]] = self.plan["settlements"]

    def key(self, number: int) -> str:
        """Return a key by its number, from 1."""
        assert number > 0
        return self.call.keys[number - 1]

    def entry(self, number: int) -> list[str]:
        """Return the fields and values of an entry to write by its number, from 1."""
        assert number > 0
        return unpacked(self.entries[number - 1])

    def buckets(self, settlement: int = 0) -> list[str]:
        """Return the keys of the buckets that count a settlement."""
        numbers = self.settlements[settlement]["outcome"]["buckets"]
        return [self.key(self.plan["buckets"][number - 1]["key"]) for number in numbers]


def settlement(
    texts: Sequence[TextToWrite] = (), outcome: ResponseOutcome | None = None, **changed: Any
) -> Settlement:
    """Return a settlement with these texts and this outcome only."""
    fields: dict[str, Any] = {"applied_endings": [], "unsettled_since": None, "ended": False, **changed}
    return Settlement(KEY, 7, texts, outcome=outcome, **fields)


def outcome(
    at_ms: int = 1_000_000, name: str = "m-1", alerts: Sequence[ModerationAlert] = ()
) -> ResponseOutcome:
    """Return the outcome of a model's response."""
    return ResponseOutcome(at_ms, [("model", name)], alerts)


def alert(alert_type: AlertType) -> ModerationAlert:
    """Return an alert of a type."""
    return ModerationAlert(type=alert_type, id="a_1", severity="info", text="", raised_at=time_of(1))


def text(opened: ModerationAlert | None = None, finished: ModerationAlert | None = None) -> TextToWrite:
    """Return a finished text with its alerts."""
    assembly = Assembly("No.", 1, 0, 1, 1)
    message = assembled_text(
        FinishedPart(PART, assembly, "completed", None, "verified", None, ContextValues(), 1, 2)
    )
    return TextToWrite(PART, message, opened, finished, 42, 3)


def test_the_first_keys_are_those_that_the_script_names() -> None:
    """Pass the fixed keys first, in the script's order."""
    call = Call()
    assert call.call.keys == ["t:assembled", "t:alerts", "t:counts", "t:open", "t:waiting"]
    assert call.settlements == []
    assert call.plan["replication_id"] == "replication_id"


def test_a_bucket_has_room_for_a_thousand_names() -> None:
    """Limit a bucket to 1000 names and count the rest as "(other)". Otherwise names could fill the server."""
    plan = Call().plan
    assert (plan["names_at_most"], plan["other"]) == (1000, "(other)")


def test_times_to_live_are_those_of_the_settings() -> None:
    """Pass the times to live of the settings, in milliseconds."""
    call = Call(settings=Settings())
    default = Settings()
    assert call.plan["marker_ttl_ms"] == default.remembered * 1000
    assert call.plan["item_ttl_ms"] == default.item_ttl * 1000
    assert call.plan["over_ttl_ms"] == OVER_MS == 600_000


def test_a_response_without_texts_is_remembered_no_longer_than_one_with_them() -> None:
    """Keep the marker of a response without texts no longer than the others."""
    short = Settings(marker_ttl=60, item_ttl=60, retention=60)
    assert Call(settings=short).plan["over_ttl_ms"] == 60_000


def test_version_and_endings_are_passed() -> None:
    """Pass the version and the endings that were read, so that the script detects changes since then."""
    applied_endings = [Arrival(EntryId(5, 1), 2), Arrival(EntryId(6, 0), 0)]
    call = Call(
        settlement(
            applied_endings=applied_endings, ended=True, unsettled_since=EntryId(9, 3), idle_since_ms=8
        )
    )
    (plan,) = call.settlements
    assert call.key(plan["state"]) == "t:state:response:resp_1"
    assert call.key(plan["marker"]) == KEYS.marker(KEY)
    assert (plan["member"], plan["version"], plan["ended"]) == ("response:resp_1", 7, True)
    assert plan["applied_endings"] == ["5-1:2", "6-0:0"]
    assert (plan["unsettled_ms"], plan["idle_since_ms"]) == (9, 8)
    assert "outcome" not in plan


def test_unset_values_are_left_out() -> None:
    """Omit unset values, since the script treats a present value as set."""
    (plan,) = Call(settlement()).settlements
    assert (
        not {"unsettled_ms", "idle_since_ms", "outcome", "partial", "earlier", "contradictions"} & plan.keys()
    )
    assert plan["ended"] is False
    assert plan["applied_endings"] == plan["closed"] == []


def test_a_time_of_zero_is_a_time() -> None:
    """Pass a time of zero, which an explicit entry id can have."""
    (plan,) = Call(settlement(unsettled_since=EntryId(0, 1), idle_since_ms=0)).settlements
    assert (plan["unsettled_ms"], plan["idle_since_ms"]) == (0, 0)


def test_a_text_is_written_with_its_item() -> None:
    """Pass the text with the keys and fields of its log and its item."""
    finished = text()
    call = Call(settlement([finished]))
    ((plan,),) = (each["closed"] for each in call.settlements)
    assert call.key(plan["log"]) == "t:log:response:resp_1:2:1:refusal"
    assert call.key(plan["item"]) == "t:item:resp_1:2"
    assert (plan["field"], plan["item_field"]) == ("2:1:refusal", "refusal:1")
    assert (plan["log_bytes"], plan["late"]) == (42, 3)
    assert plan["digest"] == text_digest(finished.message.text)
    message = call.entry(plan["message"])
    assert message == entry_of(finished.message, stamped(finished.message, "t").model_dump_json())
    assert message[0] == "__data__", "the script stores the second value as the item's text"
    assert not {"opened", "finished"} & plan.keys()


def test_a_text_brings_its_alerts() -> None:
    """Pass the opened and the finished alert separately."""
    opened, finished = alert("deltaloom.refusal.opened"), alert("deltaloom.refusal.finished")
    call = Call(settlement([text(opened, finished)]))
    ((plan,),) = (each["closed"] for each in call.settlements)
    assert call.entry(plan["opened"]) == entry_of_alert(opened, "t")
    assert call.entry(plan["finished"]) == entry_of_alert(finished, "t")


def test_an_end_is_counted_in_both_series() -> None:
    """Count an ended response in the window's and in the baseline's bucket, each with its expiry."""
    call = Call(settlement(outcome=outcome(at_ms=1_234_567)))
    plan = call.settlements[0]["outcome"]
    assert (plan["alerts"], plan["counted_for"]) == ([], [["model", "m-1"]])
    assert call.buckets() == [f"t:rates:{WINDOW_MS}:1230000", f"t:rates:{BASELINE_MS}:1200000"]
    window, baseline = call.plan["buckets"]
    assert (window["start_ms"], window["expires_ms"]) == (1_230_000, 1_230_000 + 12 * WINDOW_MS)
    assert (baseline["start_ms"], baseline["expires_ms"]) == (1_200_000, 1_200_000 + 26 * BASELINE_MS)


def test_a_bucket_is_named_once() -> None:
    """Pass each bucket's key once for a whole call."""
    call = Call(
        settlement(outcome=outcome(1)), settlement(outcome=outcome(2)), settlement(outcome=outcome(WINDOW_MS))
    )
    assert call.buckets(0) == call.buckets(1)
    assert call.buckets(2) == [f"t:rates:{WINDOW_MS}:{WINDOW_MS}", f"t:rates:{BASELINE_MS}:0"]
    assert len(call.plan["buckets"]) == 3


def test_an_end_without_names_is_counted_nowhere() -> None:
    """Count a response without a model and a tenant in no bucket."""
    call = Call(settlement(outcome=ResponseOutcome(1, [], [])))
    assert call.plan["buckets"] == call.settlements[0]["outcome"]["buckets"] == []


def test_nothing_is_counted_without_a_window() -> None:
    """Count in no bucket if spike detection is disabled."""
    call = Call(settlement(outcome=outcome()), settings=Settings(spike_window=0))
    assert call.plan["buckets"] == call.settlements[0]["outcome"]["buckets"] == []


@pytest.mark.parametrize("length", [NAME_LENGTH, NAME_LENGTH + 1])
def test_a_long_name_is_cut(length: int) -> None:
    """Truncate long names. Otherwise one producer's names could fill the server."""
    call = Call(settlement(outcome=outcome(name="m" * length)))
    assert call.settlements[0]["outcome"]["counted_for"] == [["model", "m" * NAME_LENGTH]]


def test_the_alerts_of_an_end_go_by_their_types() -> None:
    """Pass a response's alerts by type, so that the script raises each type once."""
    filtered = alert("deltaloom.response.filtered")
    call = Call(settlement(outcome=outcome(alerts=[filtered])))
    (plan,) = call.settlements[0]["outcome"]["alerts"]
    assert plan["type"] == "deltaloom.response.filtered"
    assert call.entry(plan["entry"]) == entry_of_alert(filtered, "t")
