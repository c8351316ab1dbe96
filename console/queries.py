"""Read the parameters of a request, each within its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.console_errors import bad_request

if TYPE_CHECKING:
    from collections.abc import Collection

    from multidict import MultiMapping

LONGEST = 1024
"""Maximum characters of a parameter."""


class Query:
    """The parameters of a request.

    Args:
        given: names and values, as aiohttp decodes them.
        allowed: names that the path has.

    Raises:
        ConsoleError: a name is unknown or repeated, or a value is too long.
    """

    def __init__(self, given: MultiMapping[str], allowed: Collection[str]) -> None:
        unknown = sorted(set(given) - {*allowed})
        if unknown:
            names = ", ".join(sorted(allowed)) or "none"
            raise bad_request(f"there is no parameter {unknown[0][:40]!r} here; there are: {names}")
        for name in set(given):
            if len(given.getall(name)) > 1:
                raise bad_request(f"give {name} once")
            if len(given[name]) > LONGEST:
                raise bad_request(f"{name} has {len(given[name])} characters; at most {LONGEST}")
        self._given = given

    def text(self, name: str) -> str | None:
        """Return a text; None if it is missing or empty."""
        return self._given.get(name) or None

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a number.

        Raises:
            ConsoleError: it is none, or out of bounds.
        """
        text = self.text(name)
        if text is None:
            return default
        if (
            not text.isascii()
            or not text.isdecimal()
            or len(text) > len(str(most))
            or not least <= int(text) <= most
        ):
            raise bad_request(f"{name} is a number from {least} to {most}")
        return int(text)

    def one_of(self, name: str, values: Collection[str]) -> str | None:
        """Return one of some values; None if it is missing.

        Raises:
            ConsoleError: it is another one.
        """
        text = self.text(name)
        if text is not None and text not in values:
            raise bad_request(f"{name} is one of {', '.join(sorted(values))}")
        return text

    def flag(self, name: str) -> bool:
        """Return whether a flag is 1; it is 0 if it is missing.

        Raises:
            ConsoleError: it is neither.
        """
        return self.one_of(name, ("0", "1")) == "1"
