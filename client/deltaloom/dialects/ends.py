"""Decide how a response ended, from the value that its provider gives."""

from __future__ import annotations

from typing import Final

from deltaloom.dialects.writing import BLOCKING, COMPLETED, ProviderEnding, Status
from deltaloom.reasons import reason_class

NATURAL: Final = frozenset(
    {
        *("stop", "end_turn", "stop_sequence", "eos", "eos_token", "end", "complete", "completed", "done"),
        *("tool_calls", "tool_call", "tool_use", "function_call", "pause_turn", "endoftext"),
        "compaction",  # Anthropic's beta, a pause like pause_turn
        *(
            "finish_reason_stop",
            "finish",
            "finished",
            "stop_criteria_met",
            "reason_stop",
            "reason_tool_calls",
        ),
        *("load", "unload"),  # Ollama, for a request without a prompt
    }
)
"""Values, in lower case, of a response that came to its own end."""


def ending_of(
    value: str, *, provider: str, field: str, category: str = "", explanation: str = ""
) -> ProviderEnding:
    """Return the ending for a provider's value.

    Args:
        value: the value of the field, unchanged; empty if the provider gave none.
        provider: name of the provider in `deltaloom.reasons`.
        field: path of the field in the provider's answer, as in `deltaloom.reasons`.
        category: the provider's category of a blocked response.
        explanation: the provider's explanation of a blocked response.
    """
    if not value or value.casefold() in NATURAL:
        return COMPLETED
    found = reason_class(value, provider=provider, field=field)
    status: Status = "failed" if found == "error" else "incomplete"
    if found == "cancelled":
        return ProviderEnding("cancelled", reason=value)
    return ProviderEnding(status, value, "" if found == "unknown" else found, category, explanation)


def gravity(ending: ProviderEnding) -> int:
    """Return the rank of an ending: block, failure, cancellation, other early end, natural end."""
    if ending.reason_class in BLOCKING:
        return 4
    return {"failed": 3, "cancelled": 2, "incomplete": 1}.get(ending.status, 0)


def gravest(*endings: ProviderEnding) -> ProviderEnding:
    """Return the gravest of the ends that a provider gave, by `gravity`; the first of equal ones."""
    return max(endings, key=gravity)


def graver(new: str, old: str, *, provider: str, field: str) -> str:
    """Return the value that counts of two: the later one, unless only the earlier one blocks."""
    if not new or (
        is_blocking(old, provider=provider, field=field)
        and not is_blocking(new, provider=provider, field=field)
    ):
        return old
    return new


def is_blocking(value: str, *, provider: str, field: str) -> bool:
    """Return True if the class of a provider's value is one that a person may have to look at."""
    return bool(value) and reason_class(value, provider=provider, field=field) in BLOCKING
