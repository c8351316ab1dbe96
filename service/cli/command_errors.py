"""Translate errors into one-line messages on stderr and an exit code.

Exit codes: 0 success; 1 the command failed; 2 wrong usage or configuration.
"""

from __future__ import annotations

from typing import NamedTuple

FAILED = 1
MISUSED = 2


class CommandError(Exception):
    """The command cannot be done; the message is one line with the reason and the remedy."""


class ErrorExplanation(NamedTuple):
    """The messages and the exit code with which the command ends."""

    lines: list[str]
    exit_code: int


def explanation(error: BaseException) -> ErrorExplanation | None:
    """Return the messages and exit code for an error; None if it is a bug in this program."""
    from redis.exceptions import RedisError

    from handlers.core.routing import HandlerError
    from service.alerts.deciding.findings import ConfigError
    from service.alerts.destinations.failures import DestinationError
    from service.settings import SettingsError
    from service.storage.state_format import StateFormatError

    set_up_wrongly = SettingsError | HandlerError | ConfigError | DestinationError | StateFormatError
    if isinstance(error, set_up_wrongly):
        return ErrorExplanation(str(error).splitlines(), MISUSED)
    if isinstance(error, CommandError):
        return ErrorExplanation([str(error)], FAILED)
    if isinstance(error, RedisError):
        return ErrorExplanation([f"the server refused: {' '.join(str(error).split())}"], FAILED)
    return None
