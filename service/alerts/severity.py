"""How grave an alert is: the three severities that every destination knows, and the order of them.

A later version, or a rule of somebody else's worker, may write another word. It is shown as it is, and counts
as a warning wherever an order or one of the three is needed: nobody may miss an alert because of a new word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, get_args

from deltaloom.messages import KnownAlertSeverity

if TYPE_CHECKING:
    from deltaloom.messages import AlertSeverity

GRAVEST_FIRST: Final[tuple[KnownAlertSeverity, ...]] = ("critical", "warning", "info")

_KNOWN: Final = frozenset(get_args(KnownAlertSeverity))


def known(severity: AlertSeverity) -> KnownAlertSeverity:
    """Return the severity as one of the three; a word that this version does not know is a `warning`."""
    return cast("KnownAlertSeverity", severity) if severity in _KNOWN else "warning"


def rank(severity: AlertSeverity) -> int:
    """Return the place in the order of severities: 0 for the gravest."""
    return GRAVEST_FIRST.index(known(severity))
