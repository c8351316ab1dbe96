"""Whose text it is: what a response's entries say of it, as registers that may be stored in any order.

For each name there are two: what the producer says, and what was learned from `response.created`. The
earliest entry that says something wins, and the producer's word goes before what was learned. A text
carries what had been said when it was closed: what comes later is too late for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.effects import TRUNCATED, Context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.identity import EntryId


class RegisterName(NamedTuple):
    """Of what a register tells, and who says it."""

    name: str
    learned: bool = False


class Register(NamedTuple):
    """What was said, and in which entry. Of two, the smaller one is kept."""

    entry: EntryId
    value: str


Registers = dict[RegisterName, Register]


def note(registers: Registers, context: Context, entry: EntryId, *, learned: bool = False) -> None:
    """Add what an entry says."""
    for name, value in context.pairs():
        register = RegisterName(name, learned)
        registers[register] = min(registers.get(register, Register(entry, value)), Register(entry, value))


def context_of(registers: Mapping[RegisterName, Register], until: EntryId | None = None) -> Context:
    """What had been said with the entry `until`; all there is without one."""
    said: dict[str, str] = {}
    for learned in (True, False):
        for (name, was_learned), (entry, value) in registers.items():
            if was_learned is learned and (until is None or entry <= until):
                said[name] = value
    truncated = sorted(name.removeprefix(TRUNCATED) for name in said if name.startswith(TRUNCATED))
    known = {name: value for name, value in said.items() if not name.startswith(TRUNCATED)}
    return Context(**known, truncated=tuple(truncated))
