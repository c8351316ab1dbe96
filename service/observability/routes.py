"""Requests, answers and routes of the HTTP server, without the library that serves them.

Any part of a process can add a route, and a process that serves no HTTP does not import the library.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class HttpRequest(NamedTuple):
    """A request without a body: only GET and HEAD are served."""

    path: str
    headers: Mapping[str, str]
    """The headers by name; names in any case."""


class Answer(NamedTuple):
    """An answer; the body is sent as it is."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Route: TypeAlias = Callable[[HttpRequest], Awaitable[Answer]]
"""A function that answers the requests of one path; it may be called concurrently."""


def text(line: str, status: int = HTTPStatus.OK) -> Answer:
    """Return an answer of one line, or of several."""
    return Answer(f"{line}\n".encode(), status)


def as_json(value: Any, status: int = HTTPStatus.OK) -> Answer:
    """Return an answer with a JSON value, indented for people."""
    return Answer(json.dumps(value, indent=2).encode() + b"\n", status, "application/json")
