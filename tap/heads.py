"""Choose the headers that a proxy passes on, and read the context of a response from them.

Rules: RFC 9110, section 7.6.1 (a header that `Connection` names belongs to one connection only), and
RFC 9112, section 6.3 (a message has one framing; each side of the proxy frames anew).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from multidict import CIMultiDictProxy

_OF_ONE_CONNECTION: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade", "http2-settings"),
    }
)
_OF_THIS_SERVER: Final = frozenset({"host", "expect"})
"""Headers of a request that are for the tap itself; it writes new ones if needed."""

_SURROGATE: Final = re.compile("[\udc80-\udcff]")
"""Characters into which `surrogateescape` decodes bytes that are not UTF-8."""

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers as they came, in their order."""


class ContextHeaders(NamedTuple):
    """The headers with the context of a response, in lower case."""

    tenant: str
    safety_identifier: str
    reference: str

    def context_of(self, headers: CIMultiDictProxy[str]) -> dict[str, str]:
        """Return the values by the name of the context field; the first value of a header counts."""
        return {field: headers[name] for field, name in self._asdict().items() if headers.get(name)}


def passed_to_upstream(raw_headers: RawHeaders, own: ContextHeaders) -> CIMultiDict[str]:
    """Return the headers that the upstream gets: all but those of the connection and of the tap."""
    passed = _without(raw_headers, _OF_ONE_CONNECTION | _OF_THIS_SERVER | set(own))
    first: dict[str, str] = {}
    # Of two headers whose names differ only in case, aiohttp's client keeps only the last one.
    return CIMultiDict((first.setdefault(name.lower(), name), value) for name, value in passed.items())


def passed_to_client(raw_headers: RawHeaders) -> CIMultiDict[str]:
    """Return the headers of an answer that the client gets.

    A chunked answer gets no `Content-Length`, even if its head has one.
    """
    is_chunked = any(name.lower() == b"transfer-encoding" for name, _ in raw_headers)
    return _without(raw_headers, _OF_ONE_CONNECTION | ({"content-length"} if is_chunked else set()))


def _without(raw_headers: RawHeaders, left_out: frozenset[str]) -> CIMultiDict[str]:
    """Return the other headers as they came: aiohttp's own dictionaries change the case of some names."""
    headers = [(name.decode("latin-1"), _decoded(value)) for name, value in raw_headers]
    named = set(left_out)
    for name, value in headers:
        if name.lower() == "connection":
            named.update(each.strip().lower() for each in value.split(","))
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in named)


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def is_text(values: Iterable[str]) -> bool:
    """Return True if all values are UTF-8. Others could not be passed on as they came."""
    return not any(map(_SURROGATE.search, values))


def body_is_announced(headers: Mapping[str, str]) -> bool:
    """Return True if the head of a request announces a body."""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


def has_known_framing(headers: Mapping[str, str]) -> bool:
    """Return True if the body is at most chunked. Another transfer coding would have to be undone."""
    return headers.get("Transfer-Encoding", "chunked").strip().lower() == "chunked"
