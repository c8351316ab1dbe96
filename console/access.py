"""Decide who may ask for what.

| setting                         | who may look                                                          |
|---------------------------------|-----------------------------------------------------------------------|
| none                            | everybody on this machine, by a name of this machine                  |
| `DELTALOOM_CONSOLE_TOKEN_FILE`  | who sends a token as `Authorization: Bearer`, or has a session for it |
| `DELTALOOM_CONSOLE_USER_HEADER` | whom a trusted proxy names in this header                             |

Another site's page must neither act nor read with the rights of a visitor. So a session's cookie is
SameSite=Strict, `Sec-Fetch-Site` and `Origin` of requests are checked, and without authentication so is
`Host`, since a site can make its own name an address of this machine (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from console.console_errors import ConsoleError, bad_request
from service.secret_files import SecretFileError, secret_in
from service.settings import SettingsError, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aiohttp import web

    from console.console_settings import ConsoleSettings

COOKIE: Final = "deltaloom_console"
SESSION_SECONDS: Final = 12 * 3600
"""Seconds after which a person has to enter the token again."""

_SHORTEST: Final = 16
"""Minimum characters of a token."""
_LONGEST_NAME: Final = 256
_FAILURES, _FAILURE_SECONDS = 10, 10.0
"""Maximum wrong tokens of all clients together, in this many seconds."""


class Visitor(NamedTuple):
    """A person who looks."""

    name: str | None
    """Name of the user; None without authentication."""


class Access:
    """The rules of access.

    Args:
        settings: the settings.

    Raises:
        SettingsError: the file of tokens cannot be used.
    """

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        file = settings.console_token_file
        self._tokens = {} if file is None else _tokens_in(file)
        """Tokens by name of the user."""
        self._failures: list[float] = []

    def check_site(self, request: web.BaseRequest) -> None:
        """Refuse a request that a page of another site makes.

        Raises:
            ConsoleError: it does.
        """
        own = self._own_hosts(request)
        if not self._settings.authenticates and not own:
            raise ConsoleError(
                HTTPStatus.FORBIDDEN,
                "this console answers to names of this machine only: open it as http://127.0.0.1 with its "
                "port, or set DELTALOOM_CONSOLE_ORIGIN to the name that its proxy has",
            )
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise ConsoleError(HTTPStatus.FORBIDDEN, "a page of another site may not ask the console")
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_own(origin, own):
            raise ConsoleError(
                HTTPStatus.FORBIDDEN,
                "the request comes from another origin: set DELTALOOM_CONSOLE_ORIGIN to the one that "
                "browsers see, if a proxy changes it",
            )

    def check_action(self, request: web.BaseRequest) -> None:
        """Refuse a request that changes something, unless it is from a page of this console or a program.

        Raises:
            ConsoleError: it has no origin and no token, or its body is not JSON.
        """
        if "Origin" not in request.headers and not _bearer(request.headers):
            raise ConsoleError(HTTPStatus.FORBIDDEN, "send the Origin of the console, as browsers do")
        if request.content_type != "application/json":
            raise ConsoleError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a JSON object as application/json")

    def visitor(self, request: web.BaseRequest) -> Visitor:
        """Return who asks.

        Raises:
            ConsoleError: the request has no valid token, session or name.
        """
        header = self._settings.console_user_header
        if header is not None:
            return self._named_by_proxy(request, header)
        if not self._tokens:
            return Visitor(None)
        given = _bearer(request.headers)
        name = self._holder(given) if given else self._in_session(request.cookies.get(COOKIE, ""))
        if name is None:
            raise ConsoleError(HTTPStatus.UNAUTHORIZED, "enter a token of the console", login=True)
        return Visitor(name)

    def new_session(self, token: str) -> str:
        """Return the value of the cookie of a new session.

        Raises:
            ConsoleError: the token is wrong, or the console has no tokens.
        """
        if not self._tokens:
            raise bad_request("this console has no tokens: it needs no session")
        name = self._holder(token)
        if name is None:
            raise ConsoleError(HTTPStatus.UNAUTHORIZED, "this token is not valid", login=True)
        return _session(name, self._tokens[name], int(time.time()) + SESSION_SECONDS)

    @property
    def secure_cookie(self) -> bool:
        """True if browsers see HTTPS."""
        return (self._settings.console_origin or "").startswith("https:")

    def _own_hosts(self, request: web.BaseRequest) -> set[str]:
        """Return the hosts, with ports, under which this request may know the console."""
        host = request.headers.get("Host", "").lower()
        own = {urlsplit(self._settings.console_origin).netloc} if self._settings.console_origin else set()
        if self._settings.authenticates:
            return own or {host}
        name = urlsplit(f"//{host}").hostname if _is_host(host) else None
        return own & {host} or ({host} if name is not None and is_loopback(name) else set())

    def _is_own(self, origin: str, hosts: set[str]) -> bool:
        if self._settings.console_origin is not None and origin.lower() == self._settings.console_origin:
            return True
        parts = urlsplit(origin.lower()) if _is_host(origin) else None
        return parts is not None and self._settings.console_origin is None and parts.netloc in hosts

    def _named_by_proxy(self, request: web.BaseRequest, header: str) -> Visitor:
        remote = request.remote
        if remote is None or not _is_in(remote, self._settings):
            raise ConsoleError(
                HTTPStatus.FORBIDDEN,
                "ask through the proxy of this console, which knows who you are",
                login=False,
            )
        names = request.headers.getall(header, [])
        if len(names) != 1 or not 0 < len(names[0]) <= _LONGEST_NAME or not names[0].isprintable():
            raise ConsoleError(
                HTTPStatus.UNAUTHORIZED, f"the proxy has to give one name of a user, in {header}", login=False
            )
        return Visitor(names[0])

    def _holder(self, given: str) -> str | None:
        """Return who has a token; None for a wrong one. Every token is compared, in constant time.

        Raises:
            ConsoleError: there were too many wrong ones.
        """
        now = time.monotonic()
        self._failures = [at for at in self._failures if at > now - _FAILURE_SECONDS]
        if len(self._failures) >= _FAILURES:
            raise ConsoleError(
                HTTPStatus.TOO_MANY_REQUESTS, "there were too many wrong tokens: try again in ten seconds"
            )
        fits = [name for name, token in self._tokens.items() if _are_equal(given, token)]
        if not fits:
            self._failures.append(now)
            return None
        return fits[0]

    def _in_session(self, cookie: str) -> str | None:
        expires, _, _ = cookie.partition(".")
        if not expires.isdecimal() or len(expires) > len(str(2**40)) or int(expires) < time.time():
            return None
        fits = [
            name
            for name, token in self._tokens.items()
            if _are_equal(cookie, _session(name, token, int(expires)))
        ]
        return fits[0] if fits else None


def _tokens_in(file: Path) -> Mapping[str, str]:
    """Return the tokens in a file by name of the user.

    Raises:
        SettingsError: the file cannot be used; nothing of it is quoted.
    """
    setting = f"DELTALOOM_CONSOLE_TOKEN_FILE={str(file)!r}"
    try:
        lines = secret_in(file).splitlines()
    except SecretFileError as error:
        raise SettingsError(f"{setting}: {error}") from None
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, colon, token = line.strip().rpartition(":")
        if not line.strip():
            continue
        if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
            raise SettingsError(
                f"{setting}: the token in line {number} needs at least {_SHORTEST} characters of ASCII "
                "without spaces; `openssl rand -base64 32` makes one"
            )
        name = name if colon else "console"
        if name in tokens or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise SettingsError(f"{setting}: the name in line {number} is missing, repeated or too long")
        if token in tokens.values():
            raise SettingsError(
                f"{setting}: the token in line {number} is another user's, too; each user needs a token "
                "of their own"
            )
        tokens[name] = token
    return tokens


def _session(name: str, token: str, expires: int) -> str:
    """Return the cookie of a session: its end, and a digest that only who knows the token can make."""
    said = f"console session\n{name}\n{expires}".encode()
    return f"{expires}.{hmac.new(token.encode(), said, hashlib.sha256).hexdigest()}"


def _are_equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _is_host(text: str) -> bool:
    """Return whether urlsplit can take a host or an origin apart."""
    try:
        urlsplit(text if "//" in text else f"//{text}").port  # noqa: B018 - raises for a wrong one
    except ValueError:
        return False
    return True


def _is_in(address: str, settings: ConsoleSettings) -> bool:
    """Return whether a peer is a trusted proxy."""
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in network for network in settings.trusted_networks)
