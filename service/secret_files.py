"""Secrets that a file holds, since orchestrators and service managers hand secrets to programs as files.

For every environment variable with a secret, `NAME_FILE` may have the path of a file with its value instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECRET = 64 * 1024
"""Maximum characters of a secret's file."""

_SUFFIX = "_FILE"


class SecretFileError(ValueError):
    """A secret cannot be read; the one-line message has the path and the remedy, but nothing of the file."""


def file_variable(name: str) -> str:
    """Return the name of the variable with the path of a file that holds the value of variable `name`."""
    return f"{name}{_SUFFIX}"


def secret_in(path: Path) -> str:
    """Return the secret in a file, without surrounding white space.

    Raises:
        SecretFileError: the file is missing, unreadable, not text, empty, or above `MAX_SECRET` characters.
    """
    try:
        with path.open(encoding="utf-8") as file:
            content = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise SecretFileError(f"the file {path}, where a secret is expected: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"the file {path}, where a secret is expected, is not text") from None
    if len(content) > MAX_SECRET:
        raise SecretFileError(
            f"the file {path} has more than {MAX_SECRET} characters; a secret is expected there"
        )
    secret = content.strip()
    if not secret:
        raise SecretFileError(f"the file {path} is empty; a secret is expected there")
    return secret


def secret_of(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the value of variable `name`, or of the file that `NAME_FILE` names; None if neither is set.

    A variable that is empty counts as not set.

    Raises:
        SecretFileError: both are set, or the file has several lines or cannot be used (see `secret_in`).
    """
    value, path = environment.get(name, "").strip(), environment.get(file_variable(name), "").strip()
    if value and path:
        raise SecretFileError(f"{name} and {file_variable(name)} are both set; unset one of them")
    if not path:
        return value or None
    try:
        secret = secret_in(Path(path))
    except SecretFileError as error:
        raise SecretFileError(f"{file_variable(name)}: {error}") from None
    if not secret.isprintable():
        raise SecretFileError(
            f"{file_variable(name)}: the file {path} has more than one line; a secret is one"
        )
    return secret
