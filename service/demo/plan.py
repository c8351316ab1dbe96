"""The programme: which stream begins when, how fast it goes, and how its texts have to end.

The files in `streams/` are what the API would have sent, line by line. What a file cannot say stands here.
The texts themselves are not in this table: they are read from the files (see `service.demo.stream`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deltaloom.messages import DeadLetterReason, Integrity, Kind, Status


class Outcome(NamedTuple):
    """How one text has to end."""

    kind: Kind
    status: Status = "completed"
    reason: str | None = None
    integrity: Integrity = "verified"
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One stream of the programme. Times are in seconds at pace 1."""

    name: str
    """The file's name, and the tenant's."""
    begins: float
    """When its `response.created` is published."""
    thinks: float
    """From there to its first delta."""
    speaks: float
    """From the first delta to the last."""
    outcomes: tuple[Outcome, ...]
    """One for each text, in the order in which they begin."""
    dead_letters: tuple[DeadLetterReason, ...] = ()
    coalesce: int = 1
    """How many events its producer puts into one entry."""


PROGRAMME = (
    Plan("observatory", 0.0, 0.4, 11.2, (Outcome("reasoning"),), coalesce=3),
    Plan("storefront", 1.2, 0.9, 4.5, (Outcome("refusal"),)),
    Plan(
        "style-guide",
        0.3,
        0.6,
        9.6,
        (
            Outcome("reasoning_summary"),
            Outcome("reasoning_summary"),
            Outcome("reasoning_summary", "incomplete", "max_output_tokens", "verified"),
        ),
    ),
    Plan("helpdesk", 5.0, 0.9, 4.8, (Outcome("refusal"),)),
    Plan("schoolbook", 0.9, 0.5, 8.2, (Outcome("reasoning"), Outcome("output_text"))),
    Plan("night-train", 0.6, 0.5, 4.6, (Outcome("reasoning", "abandoned", "idle_timeout", "unverified"),)),
    Plan(
        "post-office",
        1.6,
        0.6,
        6.0,
        (Outcome("reasoning", integrity="repaired"),),
        dead_letters=("malformed_json",),
    ),
    Plan("echo-valley", 2.4, 0.6, 5.2, (Outcome("output_text", duplicates=6),)),
)
