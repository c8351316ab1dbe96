"""Show, redact or hide the words of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from service.alerts.deciding.privacy import CUT
from service.visible import shortened

if TYPE_CHECKING:
    from console.growing_text import GrowingText
    from service.alerts.deciding.privacy import Redactor

_BORDER: Final = 200
"""Characters that are dropped after redaction where an end begins: no pattern finds half a number."""


class TextPolicy(NamedTuple):
    """The words that a page shows."""

    redactor: Redactor | None = None
    """Redactor of the alerts file; None without a file."""
    hides: bool = False

    def prose(self, text: str | None) -> str | None:
        """Return a text as it may be shown; None if it is hidden."""
        if text is None or self.hides:
            return None
        return text if self.redactor is None else self.redactor.redact_text(text)

    def beginning_of(self, text: str | None, characters: int) -> str | None:
        """Return the beginning of a text as it may be shown, with a mark if it was cut; None if it is hidden.

        The text is redacted before it is cut: no pattern finds half a number.
        """
        shown = self.prose(text)
        return None if shown is None else shortened(shown, characters + 1)

    def reason(self, reason: str | None) -> str | None:
        """Return a reason as it may be shown: redacted like a text, and never hidden."""
        return reason if reason is None or self.redactor is None else self.redactor.redact_text(reason)

    def name(self, name: str | None) -> str | None:
        """Return the name of a model, a tenant or a person as it may be shown."""
        return name if name is None or self.redactor is None else self.redactor.redact_name(name)

    def end_of(self, text: GrowingText, characters: int) -> str | None:
        """Return the end of a growing text as it may be shown; None if it is hidden."""
        if self.hides:
            return None
        if self.redactor is None:
            return text.end(characters)
        end = self.redactor.redact_text(text.end(characters + _BORDER))
        return end if text.is_within(characters + _BORDER) else CUT + end[_BORDER:]
