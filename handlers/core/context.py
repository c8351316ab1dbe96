"""Merge the context of a response into registers, which give the same result in any order of writes.

1. Each name has two registers: the producer's value, and the value learned from the response's own events.
2. Within a register, the value of the earliest entry wins.
3. The producer's value takes precedence over the learned one.
4. A text has the context known when it was closed. Values from later entries do not change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from handlers.core.effects import TRUNCATED, ContextValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.identity import EntryId


class RegisterName(NamedTuple):
    """The name of a register: a context field, and whether its value was learned from an event.

    A register for a value that was left out has the name of the value behind `TRUNCATED`, and an empty value.
    """

    name: str
    learned: bool = False


class Register(NamedTuple):
    """An entry, and the value that it gave.

    Of two registers with the same name, the smaller one is kept: that of the earlier entry or, with the same
    entry, the one with the smaller value.
    """

    entry: EntryId
    value: str


Registers = dict[RegisterName, Register]


def merge_context(
    registers: Registers, context: ContextValues, entry: EntryId, *, learned: bool = False
) -> None:
    """Merge an entry's context values into `registers`, in place.

    Of two values in one register, that of the earlier entry stays. A value of None changes nothing. `learned`
    is True if an event gives the values, False if the producer does.
    """
    for name, value in context.pairs():
        register, new = RegisterName(name, learned), Register(entry, value)
        before = registers.get(register)
        registers[register] = new if before is None else min(before, new)


def merged(registers: Mapping[RegisterName, Register], more: Mapping[RegisterName, Register]) -> Registers:
    """Return a new union of two sets of registers; of a name in both, the register of the earlier entry."""
    return {
        **registers,
        **{name: min(registers.get(name, register), register) for name, register in more.items()},
    }


def context_of(registers: Mapping[RegisterName, Register], until: EntryId | None = None) -> ContextValues:
    """Return the context that the entries up to and including `until` give; None means all entries.

    The producer's value of a name goes before the learned one, whichever is earlier. Names of values that
    were left out are in `truncated`.
    """
    learned_values: dict[str, str] = {}
    values: dict[str, str] = {}
    for (name, learned), (entry, value) in registers.items():
        if until is None or entry <= until:
            (learned_values if learned else values)[name] = value
    values = {**learned_values, **values}
    truncated = [name for name in values if name.startswith(TRUNCATED)]
    for name in truncated:
        del values[name]
    return ContextValues(
        **values,
        truncated=tuple(sorted([name.removeprefix(TRUNCATED) for name in truncated])) if truncated else (),
    )
