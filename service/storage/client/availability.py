"""What redis-py raises when the server is away, or takes no writes now: all of it one error of ours."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from traceback import walk_tb
from typing import TYPE_CHECKING

from redis import exceptions

from service.ports.storage import SetUpWronglyError, StorageUnavailableError
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

_RAISED = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,  # also "TTL exhausted": a slot was on its way for longer than redis-py waits
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.AskError,  # and MOVED: the map of the cluster changed once more
    exceptions.TryAgainError,
    exceptions.SlotNotCoveredError,
    exceptions.NoScriptError,  # flushed again between loading it and calling it
    OSError,
)

_OF_CLUSTERS = ("Redis Cluster cannot be connected", "All slots are not covered")
"""What redis-py raises a class of its own for, which is also that of mistakes in a program."""

_IN_SCRIPTS = ("access a non local key in a cluster node", "while the cluster is down")
"""What ends a script half way while its slot is moving, or its master loses the others.

A script begins only where all of its keys are. One that has deleted a key, and asks for that again, is told
to look elsewhere. So `commit.lua` deletes none, and `settle.lua` none that its second run would miss.
"""

_REMEDIES = {
    "NOPERM": "give it the rights that docs/operations.md lists for its role",
    "WRONGTYPE": "move the key or delete it, or set DELTALOOM_PREFIX to a prefix that nobody else uses",
    "command": "use a server that has it (Redis 7.0 or later, or Valkey), and do not rename commands",
}
"""What to do about an answer that only somebody can mend, by its kind."""

_UNKNOWN_COMMANDS = (
    "unknown command",
    "Unknown Redis command called from script",
    "Invalid command passed to redis.acl_check_cmd",
    "unknown subcommand",
)

_SCRIPT = re.compile(r" script: (?:[0-9a-f]{40}|on @).*$", re.DOTALL)

_PIPELINED = re.compile(r"Command # \d+ \(\S+ (\S+).*\) of pipeline caused error: \W*(.*?)\W*", re.DOTALL)
"""The error of a command in a pipeline: its key, and what the server said. The rest may be people's words."""

_ANSWERED = ("BUSY ", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "UNBLOCKED", "WAIT")


@contextmanager
def unavailable_if_away(key: str | None = None) -> Iterator[None]:
    """Raise `StorageUnavailableError` for whatever time or somebody has to mend; let the rest through.

    Args:
        key: the one that is asked about; errors about what lies there name it.
    """
    try:
        yield
    except _RAISED as error:
        raise _unavailable(error) from error
    except (AttributeError, RuntimeError) as error:
        if not _of_a_connection(error):
            raise
        raise StorageUnavailableError("ConnectionError", str(error)) from error
    except exceptions.RedisClusterException as error:
        if str(error).startswith(_OF_CLUSTERS):
            raise _unavailable(error) from error
        raise
    except exceptions.ResponseError as error:
        if wrong := set_up_wrongly(error, key):
            raise wrong from error
        if str(error).startswith(_ANSWERED):
            raise StorageUnavailableError(str(error).split(" ", 1)[0], str(error)) from error
        if any(part in str(error) for part in _IN_SCRIPTS):
            raise StorageUnavailableError("script ended", str(error)) from error
        raise


def set_up_wrongly(error: exceptions.ResponseError, key: str | None = None) -> SetUpWronglyError | None:
    """Return the error that says what somebody has to mend; None if this is not of that kind."""
    said = without_script(str(error))
    if pipelined := _PIPELINED.fullmatch(said):
        said, key = pipelined[2], pipelined[1]
    if isinstance(error, exceptions.NoPermissionError) or "ACL failure in script" in said:
        kind = "NOPERM"
    elif said.startswith("WRONGTYPE"):
        kind = "WRONGTYPE"
    elif any(part in said for part in _UNKNOWN_COMMANDS):
        kind = "command"
    else:
        return None
    said = said.removeprefix(kind).removeprefix("ERR").strip().rstrip(".")
    if key is not None and kind == "WRONGTYPE":
        said = f"{said} ({visible(key)})"
    return SetUpWronglyError(kind, f"{said}; {_REMEDIES[kind]}")


def without_script(answer: str) -> str:
    """Return a server's answer without the script's digest and line, which say nothing to a reader."""
    return _SCRIPT.sub("", answer)


def _unavailable(error: Exception) -> StorageUnavailableError:
    if distrust := distrust_of(error):
        return StorageUnavailableError("certificate", f"{str(error).rstrip('.')}: {distrust}")
    return StorageUnavailableError(type(error).__name__, str(error))


def distrust_of(error: BaseException | None) -> str | None:
    """Why a server's certificate is not trusted, and what to do; None if that is not the trouble."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({error.verify_message.rstrip('.')}): the URL has to name "
                "a host that it is for, and its CA with ?ssl_ca_certs=/path/to/ca.pem"
            )
        error = error.__cause__ or error.__context__
    return None


def _of_a_connection(error: Exception) -> bool:
    """Whether an error comes from inside of a connection: another task closed it at this very moment.

    A cluster's client closes what it takes for free while somebody takes it, and whoever that is finds no
    socket there ("'NoneType' object has no attribute …"), or a closed one ("the handler is closed").
    """
    frames = walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "redis.asyncio.connection" for frame, _ in frames)
