"""Describe a process for people, without secrets and without texts of events."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from service import logs
from service.observability.routes import Answer, text
from service.secret_files import SecretFileError, secret_in
from service.settings import Settings, SettingsError, host_and_port, is_loopback

if TYPE_CHECKING:
    from service.observability.routes import HttpRequest


def about(settings: Settings) -> dict[str, Any]:
    """Return version, state format and settings of this process, and its latest warnings and errors."""
    from service.storage.state_format import FORMAT  # noqa: PLC0415 - a parent process needs no redis before

    return {
        "version": version("deltaloom-worker"),
        "state_format": FORMAT,
        "settings": _shown(settings),
        "latest_warnings": logs.latest_warnings(),
    }


def _shown(settings: Settings) -> dict[str, Any]:
    shown = settings.model_dump(mode="json", exclude=set(settings.secrets))
    parts = urlsplit(settings.address.urls[0])  # the user, the password and the options stay away
    return {"redis": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", **shown}


class StatusGuard:
    """The check of who may see the status: on loopback everybody, elsewhere who has the token.

    Args:
        settings: the address, and the file of the token; with a token, loopback needs it, too.

    Raises:
        SettingsError: the file cannot be used as a secret.
    """

    def __init__(self, settings: Settings) -> None:
        self._open = settings.http is not None and is_loopback(host_and_port(settings.http)[0])
        self._token: bytes | None = None
        file = settings.http_token_file
        if file is not None:
            try:
                self._token = secret_in(file).encode()
            except SecretFileError as error:
                raise SettingsError(f"DELTALOOM_HTTP_TOKEN_FILE: {error}") from None

    def refusal(self, request: HttpRequest) -> Answer | None:
        """Return the answer to a request that is refused; None if it is allowed."""
        if self._token is None:
            if self._open:
                return None
            return text(
                "set DELTALOOM_HTTP_TOKEN_FILE to a file with a token, and send it as Authorization: Bearer",
                HTTPStatus.FORBIDDEN,
            )
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        token = given.strip().encode(errors="replace")  # a header may have bytes that are not UTF-8
        if scheme.lower() == "bearer" and hmac.compare_digest(token, self._token):
            return None
        refused = text("send the token as Authorization: Bearer", HTTPStatus.UNAUTHORIZED)
        return refused._replace(headers=(("WWW-Authenticate", "Bearer"),))
