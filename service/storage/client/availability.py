"""Translate errors of redis-py for a server that is unavailable or refuses commands, and explain them."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from traceback import walk_tb
from typing import TYPE_CHECKING

from redis import exceptions

from service import under_way
from service.ports.storage import SetupError, StorageUnavailableError
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNAVAILABLE_ERRORS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,  # includes "TTL exhausted": a slot migrates for longer than redis-py waits
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.AskError,  # and MOVED: the slot map of the cluster changed once more
    exceptions.TryAgainError,
    exceptions.SlotNotCoveredError,
    exceptions.NoScriptError,  # flushed again between loading it and calling it
    OSError,
)

_CLUSTER_UNAVAILABLE = ("Redis Cluster cannot be connected", "All slots are not covered")
"""First words of redis-py's errors for an unavailable cluster. Programming errors have the same class."""

_ABORTED_SCRIPTS = ("access a non local key in a cluster node", "while the cluster is down")
"""Messages that end a script half way while its slot is migrating, or its master loses the cluster.

A script begins only on a server that has all its keys. If it deletes a key and then accesses it again, the
server redirects it. So `commit.lua` deletes no key, and `settle.lua` none that its second run would need.
"""

_REMEDIES = {
    "NOPERM": "grant it the rights that docs/operations.md lists for its role",
    "WRONGTYPE": "move the key or delete it, or set DELTALOOM_PREFIX to a prefix that no other program uses",
    "command": "use a server that has it (Redis 7.0 or later, or Valkey), and do not rename commands",
}
"""Remedies for errors that need an operator, by kind of error."""

_UNKNOWN_COMMANDS = (
    "unknown command",
    "Unknown Redis command called from script",
    "Invalid command passed to redis.acl_check_cmd",
    "unknown subcommand",
)

_REFUSED_IN_SCRIPTS = ("ACL failure in script", "The user executing the script can't")
"""Messages for missing rights inside scripts; the second one is that of Redis 7.0."""

_SCRIPT = re.compile(r" script: (?:[0-9a-f]{40}|on @).*$", re.DOTALL)

_PIPELINED = re.compile(r"Command # \d+ \(\S+ (\S+).*\) of pipeline caused error: \W*(.*?)\W*", re.DOTALL)
"""The error of a command in a pipeline: its key and the server's message. The rest may have users' texts."""

_UNAVAILABLE_REPLIES = (
    "BUSY ",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "UNBLOCKED",
    "WAIT",
)


@contextmanager
def unavailable_if_away(key: str | None = None) -> Iterator[None]:
    """Run commands in the block, and replace an error that a retry or an operator can resolve.

    All other errors pass through unchanged. The commands also count as a call of the step that is under way
    (`service/under_way.py`).

    Args:
        key: the key of the command, for the message of a WRONGTYPE error; None to name no key.

    Raises:
        StorageUnavailableError: the server is unavailable or refuses writes for now; retry.
        SetupError: a `StorageUnavailableError` that an operator has to resolve: a right is missing, a key
            has another type, or the server lacks a command.
    """
    under_way.calls()
    try:
        yield
        under_way.moved()
    except StorageUnavailableError:  # translated by an inner block
        raise
    except _UNAVAILABLE_ERRORS as error:
        raise _unavailable(error) from error
    except (AttributeError, RuntimeError) as error:
        if not from_connection(error):
            raise
        raise StorageUnavailableError("ConnectionError", str(error)) from error
    except exceptions.RedisClusterException as error:
        if str(error).startswith(_CLUSTER_UNAVAILABLE):
            raise _unavailable(error) from error
        raise
    except exceptions.ResponseError as error:
        if translated := _translated(error, key):
            raise translated from error
        raise


def _translated(error: exceptions.ResponseError, key: str | None) -> StorageUnavailableError | None:
    """Return the error to raise in place of a server's error reply; None if that has to pass unchanged.

    Return a `SetupError` if an operator can help, else a `StorageUnavailableError` if a retry can.
    """
    if wrong := set_up_wrongly(error, key):
        return wrong
    if str(error).startswith(_UNAVAILABLE_REPLIES):
        return StorageUnavailableError(str(error).split(" ", 1)[0], str(error))
    if any(part in str(error) for part in _ABORTED_SCRIPTS):
        return StorageUnavailableError("script ended", str(error))
    return None


def set_up_wrongly(error: exceptions.ResponseError, key: str | None = None) -> SetupError | None:
    """Return an error with the remedy for a missing right, a key of another type, or an unknown command.

    The error is returned, not raised; None stands for any other error reply. For a key of another type, the
    message names the key: `key`, or the one in the reply if the command was in a pipeline.
    """
    message = without_script(str(error))
    if pipelined := _PIPELINED.fullmatch(message):
        message, key = pipelined[2], pipelined[1]
    refused = isinstance(error, exceptions.NoPermissionError)
    if refused or any(part in message for part in _REFUSED_IN_SCRIPTS):
        kind = "NOPERM"
    elif message.startswith("WRONGTYPE"):
        kind = "WRONGTYPE"
    elif any(part in message for part in _UNKNOWN_COMMANDS):
        kind = "command"
    else:
        return None
    message = message.removeprefix(kind).removeprefix("ERR").strip().rstrip(".")
    if key is not None and kind == "WRONGTYPE":
        message = f"{message} ({visible(key)})"
    return SetupError(kind, f"{message}; {_REMEDIES[kind]}")


def without_script(answer: str) -> str:
    """Return a server's message without the script's digest and line, which do not help a reader."""
    return _SCRIPT.sub("", answer)


def _unavailable(error: Exception) -> StorageUnavailableError:
    if distrust := distrust_of(error):
        return StorageUnavailableError("certificate", f"{str(error).rstrip('.')}: {distrust}")
    return StorageUnavailableError(type(error).__name__, str(error))


def distrust_of(error: BaseException | None) -> str | None:
    """Return a clause that says why a server's certificate is not trusted, and the remedy.

    Search the error and its causes. Return None if none of them is about a certificate.
    """
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({error.verify_message.rstrip('.')}): use a URL with a "
                "host that the certificate is valid for, and with its CA as ?ssl_ca_certs=/path/to/ca.pem"
            )
        error = error.__cause__ or error.__context__
    return None


def from_connection(error: Exception) -> bool:
    """Return whether an error passed through redis-py's module of asyncio connections.

    For an AttributeError or a RuntimeError, this means that the connection has just been closed. A cluster's
    client closes connections that it considers free while a task takes one. That task finds no socket
    ("'NoneType' object has no attribute …"), or a closed one ("the handler is closed"). uvloop also raises
    the second error for a connection that the server has closed.
    """
    frames = walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "redis.asyncio.connection" for frame, _ in frames)
