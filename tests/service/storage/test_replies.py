"""Test that replies are decoded by the names, and in the order, that the headers of the scripts give."""

from __future__ import annotations

import re

import msgspec
import pytest

from service.storage import scripts
from service.storage.records import named, pairs
from service.storage.replies import (
    CommitReply,
    ContradictedPart,
    LowWaterReply,
    OwnedEntry,
    PartIndex,
    RatesReply,
    RefusedLog,
    SurveyReply,
    decode_commit,
    decode_survey,
)


def returned_by(name: str) -> str:
    """Return the description of a script's reply in its header."""
    returns = scripts.FOLDER.joinpath(f"{name}.lua").read_text("utf-8").partition("\n-- Returns ")[2]
    return re.split(r"\n(?!--  )", returns.partition("\n")[2])[0] if "\n--  " in returns else returns


def array_at(description: str, beginning: str) -> tuple[str, ...]:
    """Return the names in the braces that follow `beginning`."""
    found = re.search(re.escape(beginning) + r"\s*\{*([\w, ]+)\}", description)
    assert found is not None
    return tuple(found[1].split(", "))


@pytest.mark.parametrize(("name", "reply"), [("commit", CommitReply), ("survey", SurveyReply)])
def test_a_reply_has_the_fields_of_its_script(name: str, reply: type[msgspec.Struct]) -> None:
    """Decode exactly the fields that the header lists, in its order."""
    assert tuple(re.findall(r"^--         (\w+)  +\S", returned_by(name), re.MULTILINE)) == (
        reply.__struct_fields__
    )


@pytest.mark.parametrize(
    ("field", "structure"),
    [
        ("overflowing ", PartIndex),
        ("crowded ", PartIndex),
        ("opened ", PartIndex),
        ("refused_logs ", RefusedLog),
        ("contradicted ", ContradictedPart),
        ("low_water ", LowWaterReply),
        ("with a known owner:\n-- ", OwnedEntry),
    ],
)
def test_arrays_in_the_reply_have_the_order_of_commit_lua(field: str, structure: type[PartIndex]) -> None:
    """Name the values of an array in the order of the script. Otherwise one would be taken for another."""
    assert array_at(returned_by("commit"), field) == structure._fields


def test_counts_are_in_the_order_of_rates_lua() -> None:
    """Read fields and sums in the order of the script."""
    assert array_at(scripts.source("rates"), "-- Returns MessagePack:") == RatesReply._fields


@pytest.mark.parametrize("decode", [decode_commit, decode_survey], ids=["commit", "survey"])
def test_an_unknown_field_is_refused(decode: object) -> None:
    """Raise an error for a field with another name. Otherwise the worker would use the default instead."""
    assert callable(decode)
    with pytest.raises(msgspec.ValidationError, match="unknown field `refused`"):
        decode(msgspec.msgpack.encode({"refused": []}))


def test_names_and_values_alternate() -> None:
    """Pair each name with the value that follows it, and refuse a name without a value."""
    assert named(pairs([b"a", b"1", b"b", b"2"])) == {"a": b"1", "b": b"2"}
    with pytest.raises(ValueError, match="zip"):
        dict(pairs([b"a", b"1", b"b"]))
