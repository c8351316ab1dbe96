"""The users of `deploy/users.acl`, enabled on a server for one test."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

from tests.docs.pages import ROOT
from tests.nodes import Node
from tests.server import is_redis_7_0, program
from tests.tiers import need

if TYPE_CHECKING:
    from pathlib import Path

FILE = ROOT / "deploy/users.acl"
USERS = ("producer", "worker", "relay", "subscriber", "archive", "operator", "console", "console-actions")
OWNER = "default"
KINDS = ("embedded", "redis-server")
DOES_WITHOUT = {("producer", "exists"), ("worker", "config|get"), ("operator", "config|get")}
"""Optional rights: commands that programs try and do without.

`publish` checks whether a response id is known; `check` and a starting worker ask for the server's
persistence.
"""

_SETINFO = " +client|setinfo"
"""A right that Redis 7.0 does not know."""


def password(user: str) -> str:
    """Return a user's password, on a server for one test."""
    return f"of-the-{user}"


def switched_on(lines: str) -> str:
    """Return the file with all users enabled, each with the digest of its password."""
    on = []
    for line in lines.splitlines():
        user = line.split()[1]
        digest = sha256(password(user).encode()).hexdigest()
        on.append(line.replace(f"user {user} off ", f"user {user} on #{digest} ", 1))
    return "\n".join(on) + "\n"


def line_of(user: str) -> str:
    """Return a user's line of the file."""
    (line,) = [line for line in FILE.read_text("utf-8").splitlines() if line.startswith(f"user {user} ")]
    return line


def granted(user: str) -> set[str]:
    """Return the commands that the file grants a user."""
    return set(re.findall(r"\+([a-z_|]+)", line_of(user)))


def rules_of(user: str) -> list[str]:
    """Return the arguments of `ACL SETUSER` after the user's name, for an enabled user."""
    line = switched_on(line_of(user))
    return re.findall(r"\([^)]*\)|\S+", _understood_by(program(), line).removeprefix(f"user {user} "))


def _understood_by(path: str, rules: str) -> str:
    """Return the rules without those that this server rejects."""
    return rules.replace(_SETINFO, "") if is_redis_7_0(path) else rules


class NodeWithUsers(Node):
    """A server with the users of the file alone."""

    def __init__(self, folder: Path, kind: str, **options: str) -> None:
        self._file = folder.with_suffix(".acl")
        super().__init__(folder, {"save": "", "aclfile": str(self._file), **options})
        if kind == "redis-server":
            self._command[0] = need("redis-server", what="a redis-server", package="redis-server")
        self._write(switched_on(FILE.read_text("utf-8")))
        self.connects_with = {"username": OWNER, "password": password(OWNER)}

    def _write(self, text: str) -> None:
        """Write the server's users file."""
        self._file.write_text(_understood_by(self._command[0], text), "utf-8")

    async def load(self, text: str) -> None:
        """Have the server load other users."""
        self._write(text)
        await self.ask("ACL", "LOAD")

    def url_of(self, user: str) -> str:
        """Return the address with a user's name and password."""
        return f"redis://{user}:{password(user)}@{self.address}"

    async def used(self) -> set[str]:
        """Return the commands that were run since the last call, in the form of ACL rules."""
        stats = await self.ask("INFO", "commandstats")
        await self.ask("CONFIG", "RESETSTAT")
        return {name.removeprefix("cmdstat_") for name, stat in stats.items() if stat["calls"]}

    async def refused(self) -> set[tuple[str, str]]:
        """Return the refusals of the server: user, and command or key."""
        return {(each["username"], each["object"]) for each in await self.ask("ACL", "LOG")}

    async def may(self, user: str, *command: str) -> bool:
        """Return whether a user may run a command."""
        return bool(await self.ask("ACL", "DRYRUN", user, *command) == "OK")
