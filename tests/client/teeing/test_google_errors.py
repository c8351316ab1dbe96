"""Test that an error which google-genai raises ends the copy at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom.teeing.google_errors import end_copies_at_errors, restore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class RaisedError(Exception):
    """An error of the SDK, with the response whose body is copied."""

    def __init__(self, ended: list[str]) -> None:
        super().__init__("overloaded")
        body = SimpleNamespace(end_copy=lambda: ended.append("end"))
        self.response = SimpleNamespace(response_stream=SimpleNamespace(stream=body))


class ApiClient:
    """The methods of google-genai's API client that yield events."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def request_streamed(self) -> Iterator[int]:
        """Yield an event, then raise an error."""
        yield 1
        raise RaisedError(self.ended)

    async def async_request_streamed(self) -> AsyncIterator[int]:
        """Return an iterator of the same."""

        async def events() -> AsyncIterator[int]:
            yield 1
            raise RaisedError(self.ended)

        return events()


@pytest.mark.parametrize("of_class", [False, True])
async def test_an_error_ends_the_copy_while_the_caller_still_has_it(*, of_class: bool) -> None:
    """End the copy before the caller gets the error, sync and async; and leave the methods as they were."""

    class Client(ApiClient):
        pass

    client = Client()
    owner: Any = Client if of_class else client
    before = dict(vars(owner))
    end_copies_at_errors(owner)
    end_copies_at_errors(owner)
    with pytest.raises(RaisedError):
        list(client.request_streamed())
    assert client.ended == ["end"]
    events = await client.async_request_streamed()
    assert await anext(events) == 1
    with pytest.raises(RaisedError):
        await anext(events)
    assert client.ended == ["end", "end"]
    restore(owner)
    assert {name: value for name, value in vars(owner).items() if "request" in name} == {
        name: value for name, value in before.items() if "request" in name
    }


def test_other_clients_are_left_alone() -> None:
    """Change nothing of a client without such methods, or of none."""
    other = SimpleNamespace()
    for owner in (None, other):
        end_copies_at_errors(owner)
        assert not vars(other)
        restore(owner)
    assert not vars(other)
