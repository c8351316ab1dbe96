"""Test the line numbers of a TOML document's keys."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.deciding.locations import dotted, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.alerts.deciding.locations import KeyPath

DOCUMENT = r'''# a comment with [brackets] = and "quotes
top = 1
"quoted \" key" = 'literal # no comment'
dotted.key."with a = sign" = """
several \""" lines
[not.a.table]
"""

[a]  # comment
b = [ 1, 2, # one, two
  { c = "x", d = [ [ 3 ] ] },
  "]",
]
e = { f.g = 1979-05-27 07:32:00, h = LITERAL
multi ' lineLITERAL }
[[list]]
name = "first"
  [list.sub]
  key = true
[[list]]

name = "second"
[[list.nested]]
x = +inf
[[list.nested]]
y = """""" # empty
[ far . "away" ]
z = """ends with quotes"""""
last = 0x10'''.replace("LITERAL", "'''")

LINES = {
    (): 1,
    ("top",): 2,
    ('quoted " key',): 3,
    ("dotted",): 4,
    ("dotted", "key"): 4,
    ("dotted", "key", "with a = sign"): 4,
    ("a",): 9,
    ("a", "b"): 10,
    ("a", "b", 0): 10,
    ("a", "b", 1): 10,
    ("a", "b", 2): 11,
    ("a", "b", 2, "c"): 11,
    ("a", "b", 2, "d"): 11,
    ("a", "b", 2, "d", 0): 11,
    ("a", "b", 2, "d", 0, 0): 11,
    ("a", "b", 3): 12,
    ("a", "e"): 14,
    ("a", "e", "f"): 14,
    ("a", "e", "f", "g"): 14,
    ("a", "e", "h"): 14,
    ("list",): 16,
    ("list", 0): 16,
    ("list", 0, "name"): 17,
    ("list", 0, "sub"): 18,
    ("list", 0, "sub", "key"): 19,
    ("list", 1): 20,
    ("list", 1, "name"): 22,
    ("list", 1, "nested"): 23,
    ("list", 1, "nested", 0): 23,
    ("list", 1, "nested", 0, "x"): 24,
    ("list", 1, "nested", 1): 25,
    ("list", 1, "nested", 1, "y"): 26,
    ("far",): 27,
    ("far", "away"): 27,
    ("far", "away", "z"): 28,
    ("far", "away", "last"): 29,
}


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Return the paths of all values in a document."""
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths_of(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from paths_of(each, (*path, index))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_form(ending: str) -> None:
    """Find the lines of all syntactic forms. Otherwise errors would point to wrong lines."""
    assert lines_of(DOCUMENT.replace("\n", ending)) == LINES
    assert set(paths_of(tomllib.loads(DOCUMENT))) == set(LINES)


def test_empty() -> None:
    """Locate the root of an empty file in line 1."""
    assert lines_of("") == lines_of("\n# nothing\n") == {(): 1}


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), KEYS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def quoted(text: str) -> str:
    """Return a TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def inline(value: Any) -> str:
    """Return a value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + "".join(f"{inline(each)}, # {quoted('x')}\n" for each in value) + "]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=4))
def test_every_path_has_a_line_that_holds_its_key(document: dict[str, Any]) -> None:
    """Find all paths of any document that `tomllib` accepts."""
    text = "".join(
        f"[{quoted(table)}]\n" + "".join(f"{quoted(key)} = {inline(value)}\n" for key, value in pairs.items())
        for table, pairs in document.items()
    )
    assert tomllib.loads(text) == document
    lines, found = text.split("\n"), lines_of(text)
    assert set(found) == set(paths_of(document))
    for path, line in found.items():
        if path and isinstance(path[-1], str):
            assert quoted(path[-1]) in lines[line - 1]


def test_dotted() -> None:
    """Show a path with indexes, and with quotes around keys that contain dots."""
    assert dotted(("routes", 0, "match", "severity", 1)) == "routes[0].match.severity[1]"
    assert dotted(("destinations", "on call.first", "type")) == 'destinations."on call.first".type'
    assert dotted(()) == ""
