"""Explain in words how sure a text is."""

from __future__ import annotations

from typing import Final

_VERIFIED: Final = (
    "The deltas, joined, are exactly the text that {writer} gave at the end. Nothing is missing."
)
_REPAIRED: Final = (
    "The deltas do not give the whole text: some are missing or differ, or there were none. So the text is "
    "the one that {writer} gave at the end, and complete."
)
_UNVERIFIED: Final = (
    "Neither a whole text nor a checksum came, so nobody can tell whether deltas are missing at the end."
)
_REDACTED: Final = "The provider withheld the text: there is a part, but nobody outside knows its words."
_GROWS: Final = "The text is not finished: words may still come."
_NOT_WRITTEN: Final = (
    "The text is over, but no worker has written it: its kind is not rebuilt, or that is under way."
)
_WRITERS: Final = {"provider": "the provider", "producer": "the producer, which joined its own deltas,"}

CONTRADICTED: Final = (
    " Contradicted: another text came for this part after it was finished. The first one counts; the alert "
    "has the other."
)

_STATUS: Final = {
    "completed": "",
    "incomplete": " The response ended early, so the model had more to say.",
    "failed": " The response failed.",
    "cancelled": " Somebody cancelled the response.",
    "abandoned": " No event came for the idle timeout, so the text was given up as it was.",
}


def explained(integrity: str | None, source: str | None, status: str | None, *, contradicted: bool) -> str:
    """Return what the integrity and the status of a text mean."""
    if integrity is None:
        return _GROWS if status is None else _NOT_WRITTEN
    writer = _WRITERS.get(source or "", "somebody")
    words = {
        "verified": _VERIFIED.format(writer=writer),
        "repaired": _REPAIRED.format(writer=writer),
        "unverified": _UNVERIFIED,
        "redacted": _REDACTED,
    }.get(integrity, f"This console does not know the integrity {integrity[:40]!r}.")
    return words + _STATUS.get(status or "", "") + (CONTRADICTED if contradicted else "")
