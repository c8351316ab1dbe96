"""Set the log level at start and on SIGHUP, from `DELTALOOM_LOG_LEVEL_FILE` or from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from service import logs
from service.settings import LogLevel, SettingsError, variable

if TYPE_CHECKING:
    from service.settings import Settings

_LONGEST: Final = 100
"""Maximum characters that are read of the file."""


def configure_logs(settings: Settings) -> None:
    """Configure logging, with the level of the file.

    Raises:
        SettingsError: the file has no level.
    """
    level = _level(settings)
    logs.configure(settings)
    logs.set_level(level)


def reload_log_level(settings: Settings) -> None:
    """Read the file again. If it has no level, log that and keep the previous level."""
    try:
        level = _level(settings)
    except SettingsError as error:
        logs.logger().error("log level file invalid, previous level kept", error=str(error))
        return
    logs.set_level(level)
    logs.logger().warning("log level reloaded", log_level=level)


def _level(settings: Settings) -> str:
    """Return the level of the file, or the setting if there is no file, or an empty one."""
    file = settings.log_level_file
    if file is None:
        return settings.log_level
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            written = opened.read(_LONGEST).strip().lower()
    except FileNotFoundError:
        return settings.log_level
    except OSError as error:
        raise SettingsError(f"{variable('log_level_file')}: {file}: {error.strerror}") from None
    if written and written not in get_args(LogLevel):
        allowed = ", ".join(get_args(LogLevel))
        raise SettingsError(f"{variable('log_level_file')}: {file}: {written[:20]!r} is none of {allowed}")
    return written or settings.log_level
