"""Undo the content encoding of an HTTP body, piece by piece.

Python reads gzip and deflate, and zstd from 3.14 on. Brotli needs the package `brotli`, and zstd on an
earlier Python `backports.zstd`. Clients in Python ask for these encodings only if they have the packages.
"""

from __future__ import annotations

import importlib
import zlib
from typing import TYPE_CHECKING, Any, Final

from deltaloom.dialects.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 64 * 1024
"""Maximum bytes that are decompressed at once, so that a small body never needs much memory."""

_MEMBER = b"\x1f\x8b"
"""First bytes of a member of gzip."""

_ZSTD_WINDOW_LOG = 23
"""Exponent of the largest window: 8 MB (RFC 9659). Larger ones would let a small body take much memory."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class Identity:
    """A body without content encoding."""

    is_cut = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data in pieces of at most `PIECE_BYTES`."""
        for start in range(0, len(data), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES]


class Compressed:
    """A body in gzip or deflate.

    Servers use `deflate` for two formats: with and without the header of zlib. The first bytes show which. A
    body in gzip may have several members; other bytes after a member are ignored, as gzip itself does.

    Args:
        encoding: `gzip` or `deflate`.
    """

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding == "gzip"
        self._decompressor: Any = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._held = b""
        """First bytes, while there are too few to tell the format."""
        self._is_over = False

    @property
    def is_cut(self) -> bool:
        """True if the body so far breaks off in the middle."""
        return self._decompressor is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of at most `PIECE_BYTES`.

        Raises:
            BodyError: the data are not in this encoding. All data before the error have been yielded.
        """
        data, self._held = self._held + data, b""
        has_more = False  # zlib may hold output that its input has already given
        while (data or has_more) and not self._is_over:
            decompressor = self._decompressor = self._decompressor or self._begin(data)
            if decompressor is None:
                return
            before = decompressor.copy()
            try:
                piece = decompressor.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                yield from _until_error(before, data)
                raise _wrong_encoding(error) from None
            if piece:
                yield piece
            data, has_more = decompressor.unconsumed_tail, len(piece) == PIECE_BYTES
            if decompressor.eof:
                data, has_more, self._decompressor = decompressor.unused_data, False, None
                self._is_over = not self._is_gzip

    def _begin(self, data: bytes) -> Any:
        """Return the decompressor for what these bytes begin; None if they are padding or too few."""
        if len(data) < len(_MEMBER):  # the header of zlib has two bytes too
            self._held = data
            return None
        if not self._is_gzip:
            has_header = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
            return zlib.decompressobj(_ZLIB if has_header else _RAW_DEFLATE)
        self._is_over = not data.startswith(_MEMBER)
        return None if self._is_over else zlib.decompressobj(_GZIP)


def _until_error(decompressor: Any, data: bytes) -> Iterator[bytes]:
    """Yield the data before an error: zlib drops all of a piece that has an error."""
    while data:
        half = (len(data) + 1) // 2
        attempt = decompressor.copy()
        try:
            piece = attempt.decompress(data[:half])
        except zlib.error:
            if len(data) == 1:
                return
            data = data[:half]
        else:
            decompressor, data = attempt, data[half:]
            if piece:
                yield piece


class Brotli:
    """A body in Brotli. What follows its end in a later piece is ignored.

    Of a damaged piece, data before the damage may be lost too.

    Raises:
        ImportError: the package `brotli` is missing, or older than 1.2.
    """

    def __init__(self) -> None:
        brotli: Any = importlib.import_module("brotli")
        self._error: Any = brotli.error
        self._decompressor: Any = brotli.Decompressor()
        if not hasattr(self._decompressor, "can_accept_more_data"):
            raise ImportError("brotli is older than 1.2, which cannot limit its output")
        self._has_begun = False

    @property
    def is_cut(self) -> bool:
        """True if the body so far breaks off in the middle."""
        return self._has_begun and not self._decompressor.is_finished()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of about `PIECE_BYTES`.

        Raises:
            BodyError: the data are not in this encoding.
        """
        decompressor = self._decompressor
        if not data or decompressor.is_finished():
            return
        self._has_begun = True
        while True:
            try:
                piece = decompressor.process(data, output_buffer_limit=PIECE_BYTES)
            except self._error as error:
                raise _wrong_encoding(error) from None
            if not piece:
                return
            yield piece
            data = b""


class Zstandard:
    """A body in zstd, of one or more frames.

    Of a damaged piece, data before the damage may be lost too.

    Raises:
        ImportError: this Python has no zstd, and `backports.zstd` is missing.
    """

    def __init__(self) -> None:
        try:
            self._zstd: Any = importlib.import_module("compression.zstd")
        except ImportError:
            self._zstd = importlib.import_module("backports.zstd")
        self._decompressor: Any = None

    @property
    def is_cut(self) -> bool:
        """True if the body so far breaks off in the middle."""
        return self._decompressor is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces of at most `PIECE_BYTES`.

        Raises:
            BodyError: the data are not in this encoding, or need a larger window than HTTP allows.
        """
        zstd = self._zstd
        while data or (self._decompressor is not None and not self._decompressor.needs_input):
            if self._decompressor is None:
                window = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
                self._decompressor = zstd.ZstdDecompressor(options=window)
            try:
                piece = self._decompressor.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as error:
                raise _wrong_encoding(error) from None
            if piece:
                yield piece
            data = b""
            if self._decompressor.eof:
                data, self._decompressor = self._decompressor.unused_data, None


def _wrong_encoding(error: Exception) -> BodyError:
    return BodyError(f"the body is not in the encoding of its header: {error}")


_OPTIONAL: Final[dict[str, type[Brotli | Zstandard]]] = {"br": Brotli, "zstd": Zstandard}


def is_readable(encoding: str) -> bool:
    """Return whether a body with this header `Content-Encoding` can be read with what is installed."""
    try:
        decoder_of(encoding)
    except BodyError:
        return False
    return True


def decoder_of(encoding: str) -> Identity | Compressed | Brotli | Zstandard:
    """Return a decoder for the value of the header `Content-Encoding`.

    Raises:
        BodyError: the encoding is unknown, or its package is missing. Known are gzip, deflate, br, zstd and
            identity.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return Identity()
    if name in {"gzip", "deflate"}:
        return Compressed(name)
    if name in _OPTIONAL:
        try:
            return _OPTIONAL[name]()
        except ImportError as error:
            raise BodyError(f"the content encoding {name} cannot be read: {error}") from None
    raise BodyError(f"the content encoding {encoding!r:.80} is unknown: request gzip, deflate or identity")
