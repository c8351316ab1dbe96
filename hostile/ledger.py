"""Hostile entries, and what came of each. Pure: it is told everything, and asks nobody."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hostile.entry import LETTER

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostile.entry import Entry


class Place(NamedTuple):
    """An entry of a stream."""

    stream: str
    id: str


class Sent(NamedTuple):
    """What was sent in one entry."""

    generator: str
    size: int
    events: int
    may_be_letter: bool
    must_be_letter: bool


@dataclass(slots=True)
class Account:
    """A generator's: what it sent, and what was stored because of it."""

    entries: int = 0
    events: int = 0
    bytes: int = 0
    letters: int = 0
    outputs: int = 0
    """Texts and alerts."""
    stored: int = 0
    """Bytes of dead letters, texts and alerts."""
    keys: int = 0
    """Bytes of keys that bear its ids, the most that was found at once."""


@dataclass(slots=True)
class Ledger:
    """All hostile entries of a run.

    Attributes:
        violate: is told what is wrong: the kind, an example, and what tells it apart from others of the kind.
        accounts: by generator.
        letters: dead letters of each entry, also of honest ones.
        refused: entries that the server did not take; they are in no account.
    """

    violate: Callable[[str, str, str], None]
    accounts: defaultdict[str, Account] = field(default_factory=lambda: defaultdict(Account))
    letters: Counter[Place] = field(default_factory=Counter)
    refused: int = 0
    _letter_bytes: Counter[Place] = field(default_factory=Counter)
    _sent: dict[Place, Sent] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Hostile entries that are stored."""
        return len(self._sent)

    @property
    def bytes(self) -> int:
        """Bytes of them."""
        return sum(account.bytes for account in self.accounts.values())

    def sent(self, generator: str, place: Place, entry: Entry) -> None:
        """Note that an entry is stored."""
        may_be_letter, must_be_letter = LETTER in entry.ends, entry.ends == {LETTER}
        sent = Sent(generator, entry.size, entry.events, may_be_letter, must_be_letter)
        self._sent[place] = sent
        account = self.accounts[generator]
        account.entries += 1
        account.events += sent.events
        account.bytes += sent.size

    def letter(self, place: Place, size: int) -> None:
        """Note a dead letter of an entry, hostile or not: its entry's reply may still be under way."""
        self.letters[place] += 1
        self._letter_bytes[place] += size

    def output(self, generator: str, size: int) -> None:
        """Note a text or an alert of a generator's."""
        account = self.accounts[generator]
        account.outputs += 1
        account.stored += size

    def keys(self, sizes: Counter[str]) -> None:
        """Note the bytes of keys by the generator that they belong to, as they are just now."""
        for generator, size in sizes.items():
            account = self.accounts[generator]
            account.keys = max(account.keys, size)

    def end(self, *, per_byte: float, per_event: float) -> None:
        """Compare what came of everything with what may: of each entry, and of all entries of a generator."""
        self._judge_letters()

        def compare(name: str, what: str, stored: int, size: int, events: int) -> None:
            allowed = per_byte * size + per_event * events
            if stored > allowed:
                of = f"{size:,} bytes in {events:,} events; at most {allowed:,.0f}"
                self.violate("stored too much", f"{name}: {stored:,} bytes {what} of {of}", f"{name} {what}")

        for place, size in self._letter_bytes.items():
            sent = self._sent.get(place)
            if sent is not None:
                compare(sent.generator, "of dead letters for one entry", size, sent.size, sent.events)
        for name, account in sorted(self.accounts.items()):
            compare(name, "in all", account.stored + account.keys, account.bytes, account.events)

    def _judge_letters(self) -> None:
        for place, size in self._letter_bytes.items():
            sent = self._sent.get(place)
            if sent is None:
                self.violate("unknown dead letter", f"{place.stream} {place.id}: nobody hostile sent it", "")
                continue
            account = self.accounts[sent.generator]
            account.letters += self.letters[place]
            account.stored += size
            if not sent.may_be_letter:
                self.violate(
                    "unknown dead letter", f"{sent.generator}: {place.id} can be handled", sent.generator
                )
        for place, sent in self._sent.items():
            if sent.must_be_letter and not self.letters[place]:
                self.violate("lost entry", f"{sent.generator}: {place.id} is no dead letter", sent.generator)
