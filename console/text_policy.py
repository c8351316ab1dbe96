"""Show, redact or hide the words of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from service.alerts.deciding.privacy import CUT

if TYPE_CHECKING:
    from console.growing_text import GrowingText
    from service.alerts.deciding.privacy import Redactor

_BORDER: Final = 200
"""Characters that are dropped where a text is cut before it is redacted: half a number is no number."""


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

    def name(self, name: str | None) -> str | None:
        """Return the name of a model, a tenant or a person as it may be shown."""
        return name if name is None or self.redactor is None else self.redactor.redact_name(name)

    def end_of(self, text: GrowingText, characters: int) -> str | None:
        """Return the end of a growing text as it may be shown; None if it is hidden."""
        if self.hides:
            return None
        if self.redactor is None:
            return text.end(characters)
        end = text.end(characters + _BORDER)
        if text.length > len(end):
            end = CUT + end[_BORDER:]
        return self.redactor.redact_text(end)
