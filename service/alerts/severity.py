"""The three severities that every destination knows, and their order.

A later version of the worker may write another word. Messages show that word, but it counts as a warning
wherever an order or one of the three is needed: nobody may miss an alert because of a new word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, get_args

from deltaloom.messages import KnownAlertSeverity

if TYPE_CHECKING:
    from deltaloom.messages import AlertSeverity

GRAVEST_FIRST: Final[tuple[KnownAlertSeverity, ...]] = ("critical", "warning", "info")

_KNOWN: Final = frozenset(get_args(KnownAlertSeverity))


def known(severity: AlertSeverity) -> KnownAlertSeverity:
    """Return a severity as one of the three; a word that this version does not know becomes `warning`."""
    return cast("KnownAlertSeverity", severity) if severity in _KNOWN else "warning"


def rank(severity: AlertSeverity) -> int:
    """Return the rank of a severity: 0 for the gravest."""
    return GRAVEST_FIRST.index(known(severity))
