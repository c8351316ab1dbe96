"""The programme: start, speed and expected outcome of each stream.

The files in `streams/` hold the events of the API, line by line, or the bytes of another provider. This table
holds what a file cannot express.
The expected texts are not in it: `demo.stream` reads them from the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deltaloom.messages import AlertType, DeadLetterReason, Integrity, Kind, Status


class ExpectedOutcome(NamedTuple):
    """The expected outcome of a text."""

    kind: Kind
    status: Status = "completed"
    reason: str | None = None
    integrity: Integrity = "verified"
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A stream of the programme. Times are in seconds at pace 1."""

    name: str
    """Name of the file and of the tenant."""
    begins: float
    """Time at which `response.created` is published."""
    thinks: float
    """Seconds from there to the first delta."""
    speaks: float
    """Seconds from the first delta to the last."""
    outcomes: tuple[ExpectedOutcome, ...]
    """Expected outcome of each text, in the order in which the texts begin."""
    dead_letters: tuple[DeadLetterReason, ...] = ()
    coalesce: int = 1
    """Number of events that the producer puts into one entry."""
    dialect: str | None = None
    """Dialect of the bytes that the producer translates; None for events of the Responses API."""
    alert: AlertType | None = None
    """Type of the alert that the end of the response raises; None for none."""


PROGRAMME = (
    Plan("observatory", 0.0, 0.4, 11.2, (ExpectedOutcome("reasoning"),), coalesce=3),
    Plan("storefront", 1.2, 0.9, 4.5, (ExpectedOutcome("refusal"),)),
    Plan(
        "style-guide",
        0.3,
        0.6,
        9.6,
        (
            ExpectedOutcome("reasoning_summary"),
            ExpectedOutcome("reasoning_summary"),
            ExpectedOutcome("reasoning_summary", "incomplete", "max_output_tokens", "verified"),
        ),
    ),
    Plan(
        "boutique",
        2.0,
        0.7,
        7.4,
        (ExpectedOutcome("reasoning"), ExpectedOutcome("refusal")),
        dialect="openai.chat",
    ),
    Plan(
        "lighthouse",
        1.4,
        0.8,
        8.4,
        (ExpectedOutcome("reasoning"), ExpectedOutcome("output_text")),
        dialect="anthropic.messages",
        alert="deltaloom.response.fallback",
    ),
    Plan(
        "aquarium",
        3.0,
        0.6,
        5.6,
        (ExpectedOutcome("reasoning"), ExpectedOutcome("output_text")),
        dialect="gemini.generate_content",
        alert="deltaloom.response.filtered",
    ),
    Plan("helpdesk", 5.0, 0.9, 4.8, (ExpectedOutcome("refusal"),)),
    Plan("schoolbook", 0.9, 0.5, 8.2, (ExpectedOutcome("reasoning"), ExpectedOutcome("output_text"))),
    Plan(
        "night-train",
        0.6,
        0.5,
        4.6,
        (ExpectedOutcome("reasoning", "abandoned", "idle_timeout", "unverified"),),
    ),
    Plan(
        "post-office",
        1.6,
        0.6,
        6.0,
        (ExpectedOutcome("reasoning", integrity="repaired"),),
        dead_letters=("malformed_json",),
    ),
    Plan("echo-valley", 2.4, 0.6, 5.2, (ExpectedOutcome("output_text", duplicates=6),)),
)
