"""The generators of hostile entries by name, in one module per family."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hostile.entry import Mutator
from hostile.generators.arrays import big_arrays
from hostile.generators.characters import bad_bytes, control_characters
from hostile.generators.detectors import card_numbers
from hostile.generators.endings import endings
from hostile.generators.envelopes import envelope_headers
from hostile.generators.fields import field_names, odd_fields
from hostile.generators.ids import future_ids
from hostile.generators.letters import letters_of_arrays
from hostile.generators.names import long_names, many_names
from hostile.generators.parts import many_parts
from hostile.generators.responses import open_responses
from hostile.generators.strangers import strangers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hostile.entry import Entry
    from hostile.victims import Victims


class Generator(NamedTuple):
    """A generator of one kind of hostile entries."""

    name: str
    share: float
    """Weight of its share in all hostile bytes, smaller if its cost depends on the number of entries."""
    make: Callable[[Mutator, Victims], Iterator[Entry]]
    in_mix: bool = True
    """True if it runs by default; else it runs only if it is named."""
    factor: float = 4
    """Factor for its share if it runs alone."""

    @property
    def what(self) -> str:
        """Return a description in one line."""
        return (self.make.__doc__ or "").partition("\n")[0]

    def entries(self, seed: str, victims: Victims) -> Iterator[Entry]:
        """Yield entries without end; the same seed gives the same entries."""
        return self.make(Mutator(seed, self.name), victims)


def _alone(
    name: str,
    share: float,
    make: Callable[[Mutator], Iterator[Entry]],
    *,
    in_mix: bool = True,
    factor: float = 4,
) -> Generator:
    def without_victims(mutator: Mutator, _victims: Victims) -> Iterator[Entry]:
        return make(mutator)

    without_victims.__doc__ = make.__doc__
    return Generator(name, share, without_victims, in_mix, factor)


_ALL = (
    _alone("envelope-headers", 8, envelope_headers),
    _alone("long-names", 8, long_names, factor=8),
    _alone("letters-of-arrays", 6, letters_of_arrays),
    _alone("many-parts", 10, many_parts),
    _alone("card-numbers", 12, card_numbers),
    _alone("open-responses", 2, open_responses, factor=8),
    _alone("many-names", 2, many_names, factor=8),
    _alone("field-names", 8, field_names),
    _alone("odd-fields", 4, odd_fields),
    _alone("endings", 4, endings),
    Generator("strangers", 1.5, strangers),
    _alone("future-ids", 0.01, future_ids, in_mix=False),
    _alone("control-characters", 1, control_characters),
    _alone("bad-bytes", 2, bad_bytes),
    _alone("big-arrays", 48, big_arrays),
)

RETRY_AFTER = "retry-after"
"""Name of a kind without entries: a second destination answers each alert with a request for a pause."""

GENERATORS = {generator.name: generator for generator in _ALL}
WHOLE = sum(generator.share for generator in _ALL)
NAMES = (*GENERATORS, RETRY_AFTER)
