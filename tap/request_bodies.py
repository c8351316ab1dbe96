"""Read the body of a request piece by piece, within limits of time and size."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from aiohttp import web

from tap.refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def pieces_of(
    request: web.BaseRequest, max_bytes: int, piece_seconds: float, whole_seconds: float = math.inf
) -> AsyncIterator[bytes]:
    """Yield the body of a request as it comes, after the `100 Continue` that the client may wait for.

    Args:
        request: the request.
        max_bytes: maximum bytes of the body.
        piece_seconds: maximum seconds to wait for a piece.
        whole_seconds: maximum seconds to wait for all pieces. The time between two reads does not count.

    Raises:
        RefusalError: the client is too slow, or the body is too large or malformed.
    """
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    clock, left, size = asyncio.get_running_loop().time, whole_seconds, 0
    while True:
        began = clock()
        try:
            async with asyncio.timeout(min(piece_seconds, left)):
                data = await request.content.readany()
        except TimeoutError:
            raise RefusalError(408, "body_too_slow", "the rest of the body did not come in time") from None
        except web.RequestPayloadError:
            raise RefusalError(400, "bad_body", "the framing of the body is broken") from None
        if not data:
            return
        left -= clock() - began
        size += len(data)
        if size > max_bytes:
            raise RefusalError(413, "body_too_large", f"the body has more than {max_bytes} bytes")
        yield data
