"""Test that one table lists the kinds of text, and that the layers below the handlers know none by name."""

from __future__ import annotations

import ast
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deltaloom.kinds import KINDS, TextKind
from handlers import BUILT_IN
from handlers.core.routing import Handler, RoutingTable

if TYPE_CHECKING:
    from deltaloom.events import PartEvent, SummaryEvent

ROOT = Path(__file__).parents[2]

GENERIC = ("handlers/core", "service/pipeline", "service/ports", "service/storage")
"""Folders that treat all kinds alike; what differs is told them by the table."""

SEVERAL = {
    "client/deltaloom/kinds.py",
    "client/deltaloom/events.py",  # types of the API's content parts and items, some of which sound the same
    "client/deltaloom/dialects/writing.py",  # the events of each kind
    "handlers/reasoning.py",  # the handler of two kinds
    *(  # what each provider calls reasoning and an answer
        f"client/deltaloom/dialects/{name}.py"
        for name in (
            *("agents", "anthropic", "bedrock", "chat", "cohere", "gemini", "interactions"),
            *("responses", "thinking_tags"),
        )
    ),
}
"""Files that name more than one kind."""


def sources(*folders: str) -> list[Path]:
    """Return the Python and Lua files in these folders, without those of the demo."""
    files = chain.from_iterable((ROOT / folder).rglob("*") for folder in folders)
    return [path for path in files if path.suffix in {".py", ".lua"} and "demo" not in path.parts]


@pytest.mark.parametrize("folder", GENERIC)
def test_generic_layers_know_no_kind(folder: str) -> None:
    """Pass kinds through the generic layers as data. Otherwise a package could not bring its own."""
    files = sources(folder)
    assert files
    named = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in KINDS
        if name in path.read_text("utf-8").lower()
    ]
    assert named == []


def test_only_the_table_lists_kinds() -> None:
    """List the kinds in one table. Otherwise a new kind would have to be added in several places."""
    several = {
        str(path.relative_to(ROOT))
        for path in sources("client", "handlers", "service")
        if path.suffix == ".py" and len(kinds_named_in(path)) > 1
    }
    assert several == SEVERAL


def kinds_named_in(path: Path) -> set[str]:
    """Return the kinds of which the name is a string in the code of a file."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } & {*KINDS}


def test_every_built_in_kind_has_a_handler() -> None:
    """Rebuild each kind of the table, and no other, by a built-in handler."""
    assert {kind for handler in BUILT_IN.values() for kind in handler.kinds} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "model"),
    [(route.adds, route.model) for handler in BUILT_IN.values() for route in handler.routes if route.adds],
)
def test_events_have_the_index_field_of_their_kind(kind: str, model: type[PartEvent | SummaryEvent]) -> None:
    """Number the parts of a kind by the field that the table names."""
    assert {"content_index", "summary_index"} & model.model_fields.keys() == {KINDS[kind].index_field}


def test_a_handler_brings_kinds_of_its_own() -> None:
    """Route a package's own kind to its handler, and count it as refused if its row says so."""
    sorry = TextKind("apology", counts_as_refused=True)
    thanks = TextKind("thanks")
    bringing = Handler("polite", (), frozenset({sorry, thanks, "reasoning"}))
    table = RoutingTable([bringing])
    assert table.kinds == dict.fromkeys(["apology", "thanks", "reasoning"], bringing)
    assert table.refusing == {"refusal", "apology"}


def test_a_handler_cannot_change_a_built_in_kind() -> None:
    """Ignore a package's row for a built-in kind, since other programs rely on it."""
    table = RoutingTable([Handler("rude", (), frozenset({TextKind("reasoning", counts_as_refused=True)}))])
    assert table.refusing == {"refusal"}
