"""Read secrets from the locations in a destination's table: environment variables or files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.options import is_web_address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_SECRET = 64 * 1024
"""Maximum characters read from a secret's file; the rest is ignored."""


def from_variable(name: str, environment: Mapping[str, str]) -> str:
    """Return the secret in an environment variable.

    Raises:
        DestinationError: the variable is not set, or empty.
    """
    secret = environment.get(name, "").strip()
    if not secret:
        raise DestinationError(
            f"the environment variable {name} is not set, or empty; a secret is expected there"
        )
    return secret


def from_file(path: Path) -> str:
    """Return the secret in a file, without surrounding white space.

    Raises:
        DestinationError: the file is missing, unreadable, not text, empty, or too large.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise DestinationError(f"the file {path}, where a secret is expected: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DestinationError(f"the file {path}, where a secret is expected, is not text") from None
    if len(content) > MAX_SECRET:
        raise DestinationError(
            f"the file {path} has more than {MAX_SECRET} characters; a secret is expected there"
        )
    secret = content.strip()
    if not secret:
        raise DestinationError(f"the file {path} is empty; a secret is expected there")
    return secret


def secret(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the secret in the variable or file, whichever is named; None if neither is.

    Raises:
        DestinationError: the secret does not exist, or is not a single line.
    """
    if variable is not None:
        found = from_variable(variable, environment)
    elif path is not None:
        found = from_file(path)
    else:
        return None
    if not found.isprintable():
        raise DestinationError(f"{variable or path} holds more than one line; a secret is one")
    return found


def required_secret(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str:
    """Return the secret as `secret` does, when the options guarantee that a location is named."""
    found = secret(variable, path, environment)
    assert found is not None, "the options' own check asks for one"  # noqa: S101 - documents an invariant
    return found


def web_address(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str:
    """Return a URL that is a secret.

    Raises:
        DestinationError: the secret does not exist, or is not a URL; the message does not repeat it.
    """
    url = required_secret(variable, path, environment)
    if not is_web_address(url):
        where = variable or path
        raise DestinationError(f"{where} does not hold a URL that starts with https:// or http://")
    return url
