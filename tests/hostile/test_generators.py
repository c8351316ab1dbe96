"""Test that each generator makes its kind of entries, and the same ones from one seed."""

from __future__ import annotations

import json
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from chaos.generator import make_response
from deltaloom import limits
from hostile.entry import ANY, REFUSED, Entry, generator_of
from hostile.generators import GENERATORS, NAMES, RETRY_AFTER, WHOLE
from hostile.victims import Victims
from service.bus.envelope import open_entry
from service.pipeline.decode import UnreadableError
from tests.hidden import hidden_in

if TYPE_CHECKING:
    from collections.abc import Iterator

SOME = 60


def victims() -> Victims:
    """Return honest responses that are all finished."""
    known = Victims()
    for number in range(20):
        response = make_response("test", 0, number, sound=True)
        known.begins(response)
        known.is_over(response)
    return known


def made(name: str, seed: str = "test", most: int = SOME) -> list[Entry]:
    """Return the first entries of a generator."""
    return list(islice(GENERATORS[name].entries(seed, victims()), most))


def body(entry: Entry) -> bytes:
    """Return the bytes of the field that should hold the events."""
    return entry.fields.get(b"event", entry.fields.get(b"__data__", b""))


def events(entry: Entry) -> list[Any]:
    """Return an entry's events."""
    value = json.loads(body(entry))
    return value if isinstance(value, list) else [value]


def field_of(entry: Entry, name: str) -> str:
    """Return a field as text."""
    return entry.fields.get(name.encode(), b"").decode()


@pytest.mark.parametrize("name", [name for name in GENERATORS if name not in {"big-arrays", "future-ids"}])
def test_a_seed_makes_the_same_entries_again(name: str) -> None:
    """Make the same entries from one seed, so that a violation can be reproduced."""
    assert made(name, most=20) == made(name, most=20)


def test_another_seed_makes_other_entries() -> None:
    """Vary entries by seed, after the fixed ones at the beginning."""
    for name in ("letters-of-arrays", "odd-fields", "bad-bytes"):
        assert made(name) != made(name, seed="other")


@pytest.mark.parametrize("name", GENERATORS)
def test_entries_declare_their_allowed_results(name: str) -> None:
    """Declare the allowed results of each entry, which the verdict compares."""
    for entry in made(name, most=10):
        assert entry.fields
        assert entry.events > 0
        assert set() < entry.ends <= ANY
        assert entry.size == sum(len(field) + len(value) for field, value in entry.fields.items())


@pytest.mark.parametrize("name", GENERATORS)
def test_invented_ids_name_their_generator(name: str) -> None:
    """Name the generator in the id, so that its costs can be assigned."""
    for entry in made(name):
        response_id = entry.fields.get(b"response_id")
        if response_id is not None and response_id.startswith(b"h."):
            assert generator_of(response_id.decode("utf-8", "replace")) == name


def test_the_mix() -> None:
    """Leave the generator that moves the stream's clock out of the mix, and sum the shares to a whole."""
    assert [name for name, each in GENERATORS.items() if not each.in_mix] == ["future-ids"]
    assert sum(each.share for each in GENERATORS.values()) == WHOLE
    assert NAMES[-1] == RETRY_AFTER
    assert all(each.what.endswith(".") for each in GENERATORS.values())


def test_envelopes_have_thousands_of_headers_and_events() -> None:
    """Make entries with thousands of headers and bad events."""
    first, second, *others = made("envelope-headers")
    assert first.size < 30_000
    with pytest.raises(UnreadableError, match="the envelope has 5000 headers in 20002 bytes"):
        open_entry(b"1-0", first.fields)
    assert body(first).endswith(b"[" + b",".join([b"1"] * 2000) + b"]")
    assert 200_000 < second.size < 300_000
    assert all(entry.ends == REFUSED for entry in (first, second, *others))


def test_long_names_are_followed_by_thousands_of_texts() -> None:
    """Make long names, which would be repeated in 2,000 texts."""
    created, closings, end = made("long-names", most=3)
    assert len(events(created)[0]["response"]["model"]) == 100_000
    assert closings.events == len(events(closings)) == 2000
    assert {event["type"] for event in events(closings)} == {"response.refusal.done"}
    assert len({entry.fields[b"response_id"] for entry in (created, closings, end)}) == 1


def test_bad_arrays_have_long_metadata() -> None:
    """Make long fields next to bad arrays, which would be repeated in 2,500 dead letters."""
    first, second, *_ = made("letters-of-arrays")
    assert first.events == len(events(first)) == 2500
    assert [len(field_of(first, name)) for name in ("tenant", "model", "reference")] == [4096] * 3
    assert len(field_of(second, "junk")) == 100_000


def test_parts_by_the_thousand() -> None:
    """Make thousands of parts: in one item, in many entries of one response, and in a final copy."""
    item, *growing, end, copy = made("many-parts", most=23)
    assert len(events(item)[0]["item"]["content"]) == 30_000
    assert item.size > 1_000_000
    indexes = [event["content_index"] for entry in growing for event in events(entry)]
    assert len(set(indexes)) == len(indexes) == 100_000
    assert len({field_of(entry, "response_id") for entry in growing}) == 1
    assert field_of(end, "response_id") == field_of(growing[0], "response_id")
    assert len(events(copy)[0]["response"]["output"][0]["content"]) == 30_000


def test_texts_of_digits() -> None:
    """Make texts of digits, which a search for card numbers takes longest for."""
    first = events(made("card-numbers", most=1)[0])[0]
    assert first["refusal"] == "3 " * 32_500
    assert all(len(events(entry)[0].get("refusal", "")) <= 65_000 for entry in made("card-numbers"))


def test_responses_that_never_end() -> None:
    """Make responses that begin and never end."""
    entries = made("open-responses", most=500)
    assert len({entry.fields[b"response_id"] for entry in entries}) == 500
    assert {events(entry)[0]["type"].rpartition(".")[2] for entry in entries} == {"delta"}


def test_arrays_up_to_45_megabytes() -> None:
    """Make arrays of up to 45 MB, and a thousand deeply nested events."""
    small, deep, large = made("big-arrays", most=3)
    assert 4_500_000 < small.size < large.size
    assert 44_000_000 < large.size < 46_000_000
    assert body(large).count(b"[]") == large.events
    assert deep.events == 1000
    assert body(deep).count(b"[" * 100) >= 1000


def test_thousands_of_names() -> None:
    """Make more than a thousand names of models, tenants, providers and types."""
    entries = made("many-names", most=1500)
    for name in ("model", "tenant", "provider"):
        assert len({field_of(entry, name) for entry in entries}) > 1000
    types = {event["type"] for entry in entries for event in events(entry)}
    assert len(types) > 1000


def test_fields_by_the_thousand() -> None:
    """Make thousands of fields, names of 100 kB, and names with NUL bytes."""
    many, long, *_ = entries = made("field-names")
    assert len(many.fields) == 4000
    assert max(map(len, long.fields)) == 100_000
    assert b"\0" in long.fields
    assert b"event" not in many.fields
    assert any(b"event" in entry.fields for entry in entries)


def test_odd_fields_are_in_valid_events() -> None:
    """Make valid JSON events with odd fields."""
    for entry in made("odd-fields"):
        assert all(isinstance(event["type"], str) for event in events(entry))


def test_every_type_of_end_is_made() -> None:
    """Make all types of ends."""
    types = {event.get("type") for entry in made("endings", most=1000) for event in events(entry)}
    assert {
        *(f"response.{end}" for end in ("completed", "done", "incomplete", "failed", "cancelled", "error")),
        "error",
        None,
    } <= types


def test_strangers_write_into_no_honest_response() -> None:
    """Write into no open honest response; only verbatim entries of finished ones are repeated."""
    honest = [make_response("test", 0, number, sound=True) for number in range(20)]
    verbatim = {
        tuple(
            sorted(
                (name.encode(), value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
                for name, value in entry.fields.items()
            )
        )
        for response in honest
        for entry in response.entries
    }
    names = {response.name for response in honest}
    replayed = 0
    for entry in made("strangers", most=300):
        if tuple(sorted(entry.fields.items())) in verbatim:
            replayed += 1
            continue
        assert field_of(entry, "response_id") not in names
        if b"response_id" not in entry.fields:
            for event in events(entry):
                assert not str(event.get("item_id")).startswith("item_")
    assert replayed > 10


def test_strangers_wait_for_a_finished_response() -> None:
    """Make neutral entries before the first honest response."""
    first = next(GENERATORS["strangers"].entries("test", Victims()))
    assert events(first) == [{"type": "h.nobody-there"}]


def test_ids_are_in_the_future() -> None:
    """Make ids that are ever further in the future."""
    hours = [int(entry.id.partition("-")[0]) // 3_600_000 for entry in made("future-ids", most=5)]
    assert hours == sorted(set(hours))


def test_hidden_characters_are_in_every_place() -> None:
    """Put hidden characters into ids, names, types and names of fields."""
    entries = made("control-characters", most=5)
    for name in ("response_id", "model", "tenant"):
        assert hidden_in(field_of(entries[0], name))
    assert hidden_in(events(entries[0])[0]["item_id"])
    assert hidden_in(events(entries[1])[0]["type"])
    assert any(unicodedata.category(each) == "Cc" for each in next(iter(entries[4].fields)).decode())
    assert all(len(field_of(entry, "response_id")) <= limits.ID for entry in entries)


def test_bytes_that_are_no_json() -> None:
    """Make bytes that a strict parser refuses, where a dead letter is expected."""

    def refused() -> Iterator[Entry]:
        yield from (entry for entry in made("bad-bytes", most=400) if entry.ends == REFUSED)

    for entry in refused():
        if entry.fields.get(b"response_id") == b"\xff\xfe":
            continue
        with pytest.raises(ValueError):  # noqa: PT011 - errors of several kinds
            json.loads(body(entry).decode())
