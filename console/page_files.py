"""The files of the pages, with an ETag each, and the headers that every answer has."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

from console.console_errors import not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer. Nothing runs that is not a file of the console, and no other site sees it."""

STATIC: Final = Path(__file__).with_name("static")

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""Content types by suffix; files with another one are not served."""

_INDEX: Final = "index.html"


class _File(NamedTuple):
    """A file as it was last read."""

    stamp: tuple[int, int]
    """Time of its last change in ns, and its size in bytes."""
    body: bytes
    etag: str


class PageFiles:
    """The files in a folder. Their names are listed once, so that no path of a request leads elsewhere.

    Args:
        folder: the folder; those inside it belong to it.
    """

    def __init__(self, folder: Path = STATIC) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in _TYPES
        }
        self._files: dict[str, _File] = {}

    def answer(self, request: web.BaseRequest, name: str = _INDEX) -> web.Response:
        """Return a file, or 304 if the client has it.

        Raises:
            ConsoleError: there is no such file.
        """
        path = self._paths.get(name)
        if path is None:
            raise not_found("the console has no such page")
        file = self._read(name, path)
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        known = request.headers.get("If-None-Match", "")
        if file.etag in [each.strip().removeprefix("W/") for each in known.split(",")]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        headers["Content-Type"] = _TYPES[path.suffix]
        return web.Response(body=file.body, headers=headers)

    def _read(self, name: str, path: Path) -> _File:
        """Return a file, read again only if it has changed."""
        status = path.stat()
        stamp = status.st_mtime_ns, status.st_size
        file = self._files.get(name)
        if file is None or file.stamp != stamp:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            file = self._files[name] = _File(stamp, body, etag)
        return file
