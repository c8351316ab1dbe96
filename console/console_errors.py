"""The error that a request is answered with."""

from __future__ import annotations

from http import HTTPStatus


class ConsoleError(Exception):
    """A request that is refused.

    Args:
        status: status of the answer.
        sentence: one plain sentence that says what to do; anybody may read it.
        **more: further fields of the answer's JSON.
    """

    def __init__(self, status: HTTPStatus, sentence: str, **more: bool | str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.more = more


def not_found(sentence: str) -> ConsoleError:
    """Return the error for something that does not exist."""
    return ConsoleError(HTTPStatus.NOT_FOUND, sentence)


def bad_request(sentence: str) -> ConsoleError:
    """Return the error for a request that nobody can answer."""
    return ConsoleError(HTTPStatus.BAD_REQUEST, sentence)
