"""Answer requests: find the route, check who asks, and turn errors into JSON."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from console.access import COOKIE, SESSION_SECONDS, Visitor
from console.console_errors import ConsoleError, bad_request, not_found
from console.console_server import json_answer, with_headers
from console.queries import Query
from service import logs
from service.ports.storage import SetupError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from console.access import Access
    from console.console_settings import ConsoleSettings
    from console.page_files import PageFiles

MAX_BODY: Final = 16 * 1024
"""Maximum bytes of a request's body."""

BODY_SECONDS: Final = 5.0
"""Maximum seconds for which a request's body is waited for: one that trickles would hold its connection."""
_PAGE_SECONDS: Final = 15.0
"""Maximum seconds of an answer that is not a stream."""
_MAX_ID: Final = 8 * 1024
"""Maximum characters of an id in a path."""


@dataclass(frozen=True)
class PageRequest:
    """A request for one of the console's answers, from a visitor who may ask."""

    http: web.BaseRequest
    visitor: Visitor
    query: Query
    name: str = ""
    """Id in the path."""
    body: Mapping[str, Any] | None = None
    """JSON object of an action."""


Answering = Callable[[PageRequest], Awaitable[Any]]
"""A function that returns JSON values, or an answer that has begun."""


class ApiRoute(NamedTuple):
    """A path below `api/`."""

    path: str
    """Path, with `*` in place of an id."""
    answer: Answering
    parameters: Sequence[str] = ()
    acts: bool = False
    """True for POST."""


class Site:
    """The answers of the console.

    Args:
        settings: the settings.
        access: who may ask for what.
        pages: the files.
        routes: the answers of the API.
    """

    def __init__(
        self, settings: ConsoleSettings, access: Access, pages: PageFiles, routes: Sequence[ApiRoute]
    ) -> None:
        self._base = settings.console_base_path
        self._access = access
        self._pages = pages
        self._routes = routes
        self.requests: Counter[tuple[str, int]] = Counter()
        """Requests by kind (`page`, `api`, `other`) and status."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        kind = "other"
        try:
            path = self._path_below_base(request)
            kind = "api" if path.startswith("api/") else "page"
            answer = await (self._api(request, path[4:]) if kind == "api" else self._page(request, path))
        except ConsoleError as error:
            answer = json_answer({"error": error.sentence, **error.more}, error.status)
        except (StorageUnavailableError, TimeoutError) as error:
            state = error.state if isinstance(error, StorageUnavailableError) else "no answer in time"
            logs.logger().warning("console request not answered, redis unavailable", error=state)
            sentence = "Redis does not answer the console: try again in a moment"
            if isinstance(error, SetupError):
                sentence = f"Redis refuses what the console asks: {error}"
            answer = json_answer({"error": sentence}, HTTPStatus.SERVICE_UNAVAILABLE)
        self.requests[kind, answer.status] += 1
        return answer if answer.prepared else with_headers(answer)

    def _path_below_base(self, request: web.BaseRequest) -> str:
        """Return the path below the base path, as it was written.

        Raises:
            ConsoleError: it is not below it.
        """
        path = request.rel_url.raw_path
        if path == self._base[:-1]:
            return ".."
        if not path.startswith(self._base):
            raise not_found(f"the console is at {self._base}")
        return path.removeprefix(self._base)

    async def _page(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Return a file. Files have nothing secret, so that the page to log in can be seen."""
        if request.method not in {"GET", "HEAD"}:
            raise _method_not_allowed("GET and HEAD")
        if path == "..":
            return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": self._base})
        if path == "":
            return self._pages.answer(request)
        if not path.startswith("static/"):
            raise not_found("the console has no such page")
        return self._pages.answer(request, unquote(path.removeprefix("static/")))

    async def _api(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        self._access.check_site(request)
        if path == "session":
            return await self._session(request)
        visitor = self._access.visitor(request)
        route, name = self._route(path)
        body = None
        if route.acts:
            if request.method != "POST":
                raise _method_not_allowed("POST")
            self._access.check_action(request)
            body = await _object_in(request)
        elif request.method != "GET":
            raise _method_not_allowed("GET")
        page = PageRequest(request, visitor, Query(request.rel_url.query, route.parameters), name, body)
        value = await route.answer(page)
        return value if isinstance(value, web.StreamResponse) else json_answer(value)

    def _route(self, path: str) -> tuple[ApiRoute, str]:
        """Return the route of a path, and the id in it.

        Raises:
            ConsoleError: there is none, or the id is too long.
        """
        parts = path.split("/")
        for route in self._routes:
            expected = route.path.split("/")
            if len(expected) == len(parts) and all(
                each in {"*", part} for each, part in zip(expected, parts, strict=True)
            ):
                name = unquote(parts[expected.index("*")]) if "*" in expected else ""
                if "*" in expected and not 0 < len(name) <= _MAX_ID:
                    raise bad_request(f"the id in the path has 1 to {_MAX_ID} characters")
                return route, name
        raise not_found("the console has no such answer")

    async def _session(self, request: web.BaseRequest) -> web.StreamResponse:
        """Begin a session for a token, or end it."""
        if request.method not in {"POST", "DELETE"}:
            raise _method_not_allowed("POST and DELETE")
        self._access.check_action(request)
        answer = web.Response(status=HTTPStatus.NO_CONTENT)
        how = {
            "path": self._base,
            "httponly": True,
            "samesite": "Strict",
            "secure": self._access.secure_cookie,
        }
        if request.method == "DELETE":
            answer.set_cookie(COOKIE, "", max_age=0, **how)  # type: ignore[arg-type] # typed one by one
            return answer
        token = (await _object_in(request)).get("token")
        if not isinstance(token, str):
            raise bad_request('send {"token": "…"}')
        value = self._access.new_session(token.strip())
        answer.set_cookie(COOKIE, value, max_age=SESSION_SECONDS, **how)  # type: ignore[arg-type] # as above
        return answer


def in_time(answer: Answering) -> Answering:
    """Return a function that gives up after some seconds, with `TimeoutError`."""

    async def within(page: PageRequest) -> Any:
        async with asyncio.timeout(_PAGE_SECONDS):
            return await answer(page)

    return within


def _method_not_allowed(methods: str) -> ConsoleError:
    return ConsoleError(HTTPStatus.METHOD_NOT_ALLOWED, f"use {methods} here")


async def _object_in(request: web.BaseRequest) -> dict[str, Any]:
    """Return the JSON object of a request's body.

    Raises:
        ConsoleError: it is too large, too slow, or none.
    """
    data = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > MAX_BODY:
                    raise ConsoleError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY} bytes"
                    )
    except TimeoutError:
        raise ConsoleError(
            HTTPStatus.REQUEST_TIMEOUT, f"the body has not come within {BODY_SECONDS:.0f} seconds"
        ) from None
    except web.RequestPayloadError:  # such as a body that is not compressed as it says
        raise bad_request("the body cannot be read") from None
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise bad_request("the body is a JSON object")
    return value
