"""Test that docs/privacy.md lists all keys. Otherwise data could be left when a person's are erased."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from service import keys
from tests.docs.pages import OPERATIONS, PRIVACY, ROOT, Page, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

TEXT = "ZQXMARKERXQZ"
PLACE = "<>"
"""The placeholder of a variable part of a key."""


async def kept(redis: Redis) -> str:
    """Return the server's logs of commands."""
    logs: list[tuple[str, ...]] = [("SLOWLOG",)]
    if await redis.config_get("commandlog-*"):  # Valkey has further logs
        logs += [("COMMANDLOG", "large-request"), ("COMMANDLOG", "large-reply")]
    return str([await command(redis, name, "GET", "-1", *which) for name, *which in logs])


async def command(redis: Redis, *words: str) -> Any:
    """Send a command for which redis-py may have no method."""
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


async def test_the_server_keeps_no_text_with_its_logs_disabled(redis: Redis) -> None:
    """Disable the server's logs of commands as docs/operations.md shows. Otherwise they would keep texts."""
    blocks = [each.text.split() for each in OPERATIONS.blocks if "-than -1" in each.text]
    there: dict[Any, Any] = await redis.config_get("*log-*")
    off = {name: "-1" for words in blocks for name in words[::2] if name in there}
    assert len(off) == len(await redis.config_get("commandlog-*-larger-than")) + 1
    try:
        for value, shown in (("0", True), ("-1", False)):
            for name in off:
                await redis.config_set(name, value)
            await redis.slowlog_reset()
            for kind in ("large-request", "large-reply") if len(off) > 1 else ():
                await command(redis, "COMMANDLOG", "RESET", kind)
            await redis.set("text", TEXT)
            await redis.get("text")
            assert (TEXT in await kept(redis)) is shown
    finally:
        for name in off:
            await redis.config_set(name, there[name])


def named_in_code() -> set[str]:
    """Return all keys in the code without their prefix, found by calls of `name`."""
    found: set[str] = set()
    for path in (ROOT / "client/deltaloom", ROOT / "service", ROOT / "handlers"):
        for file in path.rglob("*.py"):
            found |= set(_names(ast.parse(file.read_text("utf-8"))))
    return found - {PLACE, ""}  # any suffix of the command line, and the beginning of all names


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="name"), args=[argument]):
                yield _pattern(argument)


def _pattern(node: ast.expr) -> str:
    """Return a name with `<>` for each value in it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Name(id=constant)) if hasattr(keys, constant):
            return str(getattr(keys, constant))
        case ast.JoinedStr(values=values):
            return "".join(map(_pattern, values))
    return PLACE


def named_on(page: Page, heading: str) -> set[str]:
    """Return the keys of a page's table without their prefix."""
    names = [quoted(row[0])[0] for row in page.table(heading)]
    return {re.sub("<[^>]+>", PLACE, name.removeprefix("deltaloom:")) for name in names}


def test_every_key_is_on_the_page() -> None:
    """List all keys of the code."""
    code = named_in_code()
    assert {"deltas", "item:<>:<>", "log:<>:<>", "relay:<>:lease", "rates:<>:<>"} <= code
    assert named_on(PRIVACY, "The keys") == code


def test_pages_name_the_same_keys() -> None:
    """List the same keys on both pages."""
    operations = named_on(OPERATIONS, "The keys it writes")
    assert operations == named_on(PRIVACY, "The keys")
