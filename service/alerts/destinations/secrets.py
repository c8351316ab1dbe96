"""Read secrets from the locations in a destination's table: environment variables or files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.options import is_web_address
from service.secret_files import SecretFileError, file_variable, secret_in, secret_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def from_variable(name: str, environment: Mapping[str, str]) -> str:
    """Return the secret in an environment variable, or in the file that `NAME_FILE` names.

    Raises:
        DestinationError: neither is set, both are, or the file cannot be used.
    """
    try:
        secret = secret_of(name, environment)
    except SecretFileError as error:
        raise DestinationError(str(error)) from None
    if secret is None:
        raise DestinationError(
            f"the environment variable {name} is not set, or empty; a secret is expected there, "
            f"or in a file that {file_variable(name)} names"
        )
    return secret


def from_file(path: Path) -> str:
    """Return the secret in a file, without surrounding white space.

    Raises:
        DestinationError: the file is missing, unreadable, not text, empty, or too large.
    """
    try:
        return secret_in(path)
    except SecretFileError as error:
        raise DestinationError(str(error)) from None


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
