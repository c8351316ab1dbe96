"""Test the mutants of Lua scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mutation.checkout import ROOT
from mutation.lua_rules import lua_mutants
from mutation.sample import files_in

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCRIPTS = [file for file in files_in(ROOT, ["service"]) if file.endswith(".lua")]


def mutants(source: str) -> set[str]:
    """Return all mutated sources."""
    return {change.apply(source) for change in lua_mutants("code.lua", source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("local a = 1000", {"local a = 2000"}),
        ("local a = b < c", {"local a = b <= c"}),
        ("local a = b ~= c and d", {"local a = b == c and d", "local a = b ~= c or d"}),
        ("local a = not b", {"local a =  b"}),
        ("local a = b + 1", {"local a = b - 1", "local a = b + 2", "local a = b + 0"}),
        ("local a = {true, -1}", {"local a = {false, -1}", "local a = {true, -2}", "local a = {true, -0}"}),
        ("local a = math.min(b, c)", {"local a = math.max(b, c)"}),
        ("local a = 'true and 1'", set()),
        ("-- true and 1", set()),
        ("redis.call('DEL', a)\nlocal b = c", {"\nlocal b = c"}),
        ("redis.call('SET', a, b, 'KEEPTTL')", {"", "redis.call('SET', a, b)"}),
        ("redis.call('SET',\n  a, b)", {""}),
        ("a.b = c\nlocal d = e", {"\nlocal d = e"}),
        ("if a then f(b) end", {"if not (a) then f(b) end", "if a then  end"}),
        ("if a then return end", {"if not (a) then return end", "if a then  end"}),
        ("each(a, function(...) f(...) end)", {"", "each(a, function(...)  end)"}),
    ],
)
def test_mutants_of_a_statement(source: str, expected: set[str]) -> None:
    """Make exactly these mutants of a statement."""
    assert mutants(source) == expected


def test_invalid_lua_is_refused() -> None:
    """Raise an error for a script that cannot be parsed. Otherwise it would be skipped."""
    with pytest.raises(ValueError, match="not a Lua token at character 10: '@'"):
        lua_mutants("code.lua", "local a = @")


@pytest.mark.parametrize("script", SCRIPTS)
async def test_every_mutant_is_a_program(redis: Redis, script: str) -> None:
    """Make mutants that Redis can load. Otherwise they would count as killed."""
    source = (ROOT / script).read_text("utf-8")
    changes = lua_mutants(script, source)
    assert changes
    replies = []
    for first in range(0, len(changes), 50):  # few at a time: a server compiles them before it reads on
        pipeline = redis.pipeline(transaction=False)
        for change in changes[first : first + 50]:
            pipeline.script_load(change.apply(source))
        replies += await pipeline.execute(raise_on_error=False)
    refused = [
        change.diff(source)
        for change, reply in zip(changes, replies, strict=True)
        if not isinstance(reply, bytes | str)
    ]
    assert refused == []
