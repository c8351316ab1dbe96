"""Define the three severities that every destination knows, and their order.

A later version of the worker may write another severity. Messages show that word. Where only the three are
allowed, or their order matters, it counts as a warning, so that nobody misses an alert with a new severity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, get_args

from deltaloom.messages import KnownAlertSeverity

if TYPE_CHECKING:
    from deltaloom.messages import AlertSeverity

MOST_SEVERE_FIRST: Final[tuple[KnownAlertSeverity, ...]] = ("critical", "warning", "info")

_KNOWN: Final = frozenset(get_args(KnownAlertSeverity))


def known(severity: AlertSeverity) -> KnownAlertSeverity:
    """Return one of the three severities; an unknown one becomes `warning`."""
    return cast("KnownAlertSeverity", severity) if severity in _KNOWN else "warning"


def rank(severity: AlertSeverity) -> int:
    """Return the rank of a severity; 0 is the most severe."""
    return MOST_SEVERE_FIRST.index(known(severity))
