"""What redis-py raises when the server is away, or takes no writes now: all of it one error of ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis import exceptions

from service.ports import StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RAISED = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.TryAgainError,
    exceptions.NoScriptError,  # flushed again between loading it and calling it
    OSError,
)

_ANSWERED = ("BUSY ", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "UNBLOCKED", "WAITAOF")


@contextmanager
def unavailable_if_away() -> Iterator[None]:
    """Raise `StorageUnavailableError` for whatever only time will mend; let the rest through."""
    try:
        yield
    except _RAISED as error:
        raise StorageUnavailableError(type(error).__name__, str(error)) from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_ANSWERED):
            raise StorageUnavailableError(str(error).split(" ", 1)[0], str(error)) from error
        raise
