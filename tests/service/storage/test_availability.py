"""Which of the server's troubles only time will mend."""

from __future__ import annotations

import pytest
from redis import exceptions

from service.ports import StorageUnavailableError
from service.storage.availability import unavailable_if_away


@pytest.mark.parametrize(
    ("raised", "state"),
    [
        (exceptions.ConnectionError("refused"), "ConnectionError"),
        (exceptions.TimeoutError("hangs"), "TimeoutError"),
        (exceptions.BusyLoadingError("LOADING"), "BusyLoadingError"),
        (exceptions.ReadOnlyError("READONLY"), "ReadOnlyError"),
        (exceptions.OutOfMemoryError("OOM"), "OutOfMemoryError"),
        (exceptions.ResponseError("OOM command not allowed, in a script"), "OOM"),
        (exceptions.ResponseError("MISCONF cannot write to disk"), "MISCONF"),
        (exceptions.ResponseError("MASTERDOWN link is down"), "MASTERDOWN"),
        (exceptions.ResponseError("BUSY a script is running"), "BUSY"),
        (ConnectionResetError(104, "reset"), "ConnectionResetError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_that_passes(raised: Exception, state: str) -> None:
    """The batch in hand would be lost to its worker, or the log would have a traceback for each attempt."""
    with pytest.raises(StorageUnavailableError) as caught, unavailable_if_away():
        raise raised
    assert caught.value.state == state


@pytest.mark.parametrize("answer", ["WRONGTYPE a key of another kind", "NOPERM not allowed", "ERR a bug"])
def test_trouble_that_stays(answer: str) -> None:
    """A worker would wait for ever for what somebody has to mend."""
    with pytest.raises(exceptions.ResponseError), unavailable_if_away():
        raise exceptions.ResponseError(answer)
