"""What the command says when it cannot do what it was asked: one line each on stderr, and an exit code.

Exit codes: 0 done; 1 it could not be done; 2 it was asked or set up wrongly.
"""

from __future__ import annotations

from typing import NamedTuple

FAILED = 1
MISUSED = 2


class CommandError(Exception):
    """The command cannot be done; the message is one line that says why, and what to do."""


class Explanation(NamedTuple):
    """How the command ends."""

    lines: list[str]
    exit_code: int


def explanation(error: BaseException) -> Explanation | None:
    """What to tell the user of an error; None if it is a mistake in this program."""
    from redis.exceptions import RedisError

    from handlers.core.routing import HandlerConflictError
    from service.alerts.deciding.findings import ConfigError
    from service.alerts.destinations.errors import DestinationError
    from service.embedded import EmbeddedServerError
    from service.settings import SettingsError
    from service.storage.state_format import StateFormatError

    set_up_wrongly = SettingsError | HandlerConflictError | ConfigError | DestinationError | StateFormatError
    if isinstance(error, set_up_wrongly):
        return Explanation(str(error).splitlines(), MISUSED)
    if isinstance(error, CommandError | EmbeddedServerError):
        return Explanation([str(error)], FAILED)
    if isinstance(error, RedisError):
        return Explanation([f"the server refused: {' '.join(str(error).split())}"], FAILED)
    return None
