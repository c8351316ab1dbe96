"""Recognise the endpoints of models by the URL's path and the answer's content type."""

from __future__ import annotations

import re
from typing import Any, Final

from deltaloom.dialects import dialect_of_path

_FRAMES: Final = "application/vnd.amazon.eventstream"
_TYPES: Final = frozenset(
    {
        *("text/event-stream", "application/json", "application/x-ndjson", "application/ndjson"),
        *("application/jsonl", "application/x-jsonlines", "application/problem+json", _FRAMES),
    }
)
_VERTEX: Final = re.compile(r"/publishers/anthropic/models/[^/]+:(?:stream)?[rR]awPredict$")
_IN_PATH: Final = {
    "bedrock.invoke_model": "/model/",
    "bedrock.converse": "/model/",
    "gemini.interactions": "/v1",
}
"""Part that the path must contain too, since other applications use the same endings."""


def translation_of(
    method: str, path: str, status: int, content_type: str, content_encoding: str
) -> dict[str, Any] | None:
    """Return the translator's arguments for an answer; None if it is not one of a model.

    Args:
        method: method of the request.
        path: path of the request's URL, without the query.
        status: HTTP status of the answer.
        content_type: header `Content-Type` of the answer.
        content_encoding: header `Content-Encoding` of the answer.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if method != "POST" or media_type not in _TYPES or 300 <= status < 400:  # noqa: PLR2004 - redirects
        return None
    arguments = {"content_type": media_type, "content_encoding": content_encoding, "status": status}
    if _VERTEX.search(path):
        return {**arguments, "dialect": "anthropic.messages"}
    dialect = dialect_of_path(path)
    if dialect is None or _IN_PATH.get(dialect.name, "") not in path:
        return None
    if dialect.name == "bedrock.agents" and media_type != _FRAMES:
        return None
    return {**arguments, "path": path}
