"""Secrets, from where a destination's table says they are: an environment variable or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.alerts.destinations.errors import DestinationError
from service.alerts.destinations.options import is_web_address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AT_MOST = 64 * 1024
"""Characters of a secret: a larger file is not one, but a mistake."""


def from_variable(name: str, environment: Mapping[str, str]) -> str:
    """The secret in an environment variable; `DestinationError` if it is not set, or empty."""
    secret = environment.get(name, "").strip()
    if not secret:
        raise DestinationError(
            f"the environment variable {name} is not set, or empty; a secret is expected there"
        )
    return secret


def from_file(path: Path) -> str:
    """The secret in a file, without the white space around it; `DestinationError` if there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            secret = file.read(AT_MOST).strip()
    except OSError as error:
        raise DestinationError(f"the file {path}, where a secret is expected: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DestinationError(f"the file {path}, where a secret is expected, is not text") from None
    if not secret:
        raise DestinationError(f"the file {path} is empty; a secret is expected there")
    return secret


def secret(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str | None:
    """The secret in the variable or in the file, whichever is named; None if neither is.

    Raises:
        DestinationError: it is not there, or is no single line.
    """
    if variable is not None:
        found = from_variable(variable, environment)
    elif path is not None:
        found = from_file(path)
    else:
        return None
    if not found.isprintable():
        raise DestinationError(f"what stands in {variable or path} is more than one line; a secret is one")
    return found


def needed(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str:
    """The same, where the options make sure that one is named."""
    found = secret(variable, path, environment)
    assert found is not None, "the options' own check asks for one"  # noqa: S101 - cannot happen, and helps the reader
    return found


def web_address(variable: str | None, path: Path | None, environment: Mapping[str, str]) -> str:
    """An URL that is a secret; `DestinationError`, which does not repeat it, if there is none."""
    url = needed(variable, path, environment)
    if not is_web_address(url):
        where = variable or path
        raise DestinationError(f"what stands in {where} is no URL that starts with https:// or http://")
    return url
