"""Decide whether a visitor sees the words of models, and record it if the settings hide them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from console.console_errors import ConsoleError
from console.text_policy import TextPolicy

if TYPE_CHECKING:
    from console.looks import Looks
    from console.site import PageRequest
    from service.alerts.deciding.privacy import Redactor


class TextAccess:
    """The rules for texts.

    Args:
        hides: True if texts are hidden until somebody asks for them.
        redactor: redactor of the alerts file; None without a file.
        looks: the record of looks.
    """

    def __init__(self, redactor: Redactor | None, looks: Looks, *, hides: bool) -> None:
        self._shown = TextPolicy(redactor)
        self._hides = hides
        self._looks = looks

    @property
    def may_be_shown(self) -> bool:
        """True if a visitor can see texts: hidden ones only if that can be recorded."""
        return not self._hides or self._looks.are_recorded

    @property
    def names(self) -> TextPolicy:
        """The policy for names, which are never hidden."""
        return self._shown

    async def policy(self, page: PageRequest, what: str) -> TextPolicy:
        """Return the policy for an answer; that somebody asked for hidden texts is recorded.

        Raises:
            ConsoleError: hidden texts cannot be shown, since no look can be recorded.
        """
        is_asked = page.query.flag("texts")
        if not self._hides:
            return self._shown
        if not is_asked:
            return self._shown._replace(hides=True)
        if not self._looks.are_recorded:
            raise ConsoleError(
                HTTPStatus.FORBIDDEN,
                "texts are hidden, and who asks for them cannot be recorded: set "
                "DELTALOOM_CONSOLE_LOOKS_FILE or DELTALOOM_ARCHIVE_URL",
            )
        await self._looks.add_once(page.visitor, f"console texts of {what}")
        return self._shown
