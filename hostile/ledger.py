"""Hostile entries, and the outputs of each. Pure: callers report all of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hostile.entry import LETTER

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostile.entry import Entry


class Place(NamedTuple):
    """The position of an entry: stream and id."""

    stream: str
    id: str


class Sent(NamedTuple):
    """The properties of a stored hostile entry."""

    generator: str
    size: int
    events: int
    may_be_letter: bool
    must_be_letter: bool


@dataclass(slots=True)
class Account:
    """The sums of a generator: what it sent, and what was stored because of it."""

    entries: int = 0
    events: int = 0
    bytes: int = 0
    letters: int = 0
    outputs: int = 0
    """Number of texts and alerts."""
    stored: int = 0
    """Bytes of dead letters, texts and alerts."""
    keys: int = 0
    """Bytes of keys with its ids: the maximum that was found at once."""


@dataclass(slots=True)
class Ledger:
    """The hostile entries of a run.

    Attributes:
        violate: called for each violation with its kind, an example, and its variant.
        accounts: accounts by generator.
        letters: number of dead letters of each entry, honest ones included.
        refused: number of entries that the server refused; they are in no account.
    """

    violate: Callable[[str, str, str], None]
    accounts: defaultdict[str, Account] = field(default_factory=lambda: defaultdict(Account))
    letters: Counter[Place] = field(default_factory=Counter)
    refused: int = 0
    _letter_bytes: Counter[Place] = field(default_factory=Counter)
    _sent: dict[Place, Sent] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Return the number of stored hostile entries."""
        return len(self._sent)

    @property
    def bytes(self) -> int:
        """Return the bytes of stored hostile entries."""
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
        """Note a dead letter of any entry. The reply to its entry's producer may still be on its way."""
        self.letters[place] += 1
        self._letter_bytes[place] += size

    def output(self, generator: str, size: int) -> None:
        """Note a text or an alert of a generator."""
        account = self.accounts[generator]
        account.outputs += 1
        account.stored += size

    def keys(self, sizes: Counter[str]) -> None:
        """Note the current bytes of keys, by the generator that they belong to."""
        for generator, size in sizes.items():
            account = self.accounts[generator]
            account.keys = max(account.keys, size)

    def end(self, *, per_byte: float, per_event: float) -> None:
        """Compare stored bytes with their limits, per entry for dead letters and per generator in total."""
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
                self.violate(
                    "unknown dead letter", f"{place.stream} {place.id}: no generator sent its entry", ""
                )
                continue
            account = self.accounts[sent.generator]
            account.letters += self.letters[place]
            account.stored += size
            if not sent.may_be_letter:
                self.violate(
                    "unknown dead letter", f"{sent.generator}: {place.id} is a valid entry", sent.generator
                )
        for place, sent in self._sent.items():
            if sent.must_be_letter and not self.letters[place]:
                self.violate(
                    "lost entry", f"{sent.generator}: {place.id} did not become a dead letter", sent.generator
                )
