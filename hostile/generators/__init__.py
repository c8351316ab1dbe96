"""The generators of hostile entries, by their names; each in a file with others of its family."""

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
    """One kind of hostility."""

    name: str
    share: float
    """Its share of all hostile bytes, by weight: less of what costs by its number."""
    make: Callable[[Mutator, Victims], Iterator[Entry]]
    in_mix: bool = True
    """Runs unless others are named; else only by its name."""

    @property
    def what(self) -> str:
        """What it sends, in a line."""
        return (self.make.__doc__ or "").partition("\n")[0]

    def entries(self, seed: str, victims: Victims) -> Iterator[Entry]:
        """Yield entries without an end; the same ones for the same seed."""
        return self.make(Mutator(seed, self.name), victims)


def _alone(
    name: str,
    share: float,
    make: Callable[[Mutator], Iterator[Entry]],
    *,
    in_mix: bool = True,
) -> Generator:
    def without_victims(mutator: Mutator, _victims: Victims) -> Iterator[Entry]:
        return make(mutator)

    without_victims.__doc__ = make.__doc__
    return Generator(name, share, without_victims, in_mix)


_ALL = (
    _alone("envelope-headers", 8, envelope_headers),
    _alone("long-names", 16, long_names),
    _alone("letters-of-arrays", 6, letters_of_arrays),
    _alone("many-parts", 10, many_parts),
    _alone("card-numbers", 12, card_numbers),
    _alone("open-responses", 4, open_responses),
    _alone("many-names", 4, many_names),
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
"""The one that sends nothing: a second destination answers every alert with a wish to be left alone."""

GENERATORS = {generator.name: generator for generator in _ALL}
WHOLE = sum(generator.share for generator in _ALL)
NAMES = (*GENERATORS, RETRY_AFTER)
