"""Test bodies in Brotli and zstd, which need packages."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from deltaloom.dialects.content_encoding import PIECE_BYTES, Brotli, Zstandard, is_readable
from deltaloom.dialects.errors import BodyError
from tests.client.dialects.reading import reading_of
from tests.client.dialects.streams import SAMPLES, body_of
from tests.client.dialects.test_translators import translate

zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


SAMPLE = next(each for each in SAMPLES.values() if each.dialect == "openai.chat")


def compressed(encoding: str, body: bytes, flushed_at: int = 0) -> bytes:
    """Return a body in Brotli or zstd; the bytes before a place are sent as servers flush them."""
    if encoding == "br":
        compressor: Any = importlib.import_module("brotli").Compressor()
        first = compressor.process(body[:flushed_at]) + compressor.flush()
        return bytes(first + compressor.process(body[flushed_at:]) + compressor.finish())
    compressor = zstd.ZstdCompressor()
    first = compressor.compress(body[:flushed_at], compressor.FLUSH_BLOCK)
    return bytes(first + compressor.compress(body[flushed_at:]) + compressor.flush())


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_brotli_and_zstd_give_the_same_events(encoding: str) -> None:
    """Read a body in any division, end a cut one as interrupted, and damaged ones as unreadable."""
    body = body_of(SAMPLE)
    data = compressed(encoding, body, len(body) // 2)
    whole = translate(body)
    for size in (1, 7, len(data)):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert translate(*pieces, content_encoding=encoding) == whole
    cut = reading_of(translate(data[: len(data) // 2], content_encoding=encoding))
    assert (cut.status, cut.details["reason"]) == ("failed", "stream_interrupted")
    assert translate(data[:-3], content_encoding=encoding)[:2] == whole[:2]
    damaged = reading_of(translate(b"\xff" * 100, content_encoding=encoding))
    assert damaged.details["reason"] == "body_unreadable"
    assert reading_of(translate(content_encoding=encoding)).details["reason"] == "stream_interrupted"


def test_several_frames_of_zstd() -> None:
    """Read frames that follow each other as one body."""
    body = body_of(SAMPLE)
    data = compressed("zstd", body[:50]) + compressed("zstd", body[50:])
    assert translate(data, content_encoding="zstd") == translate(body)


@pytest.mark.parametrize("decoder", [Brotli(), Zstandard()])
def test_a_bomb_is_decompressed_in_pieces(decoder: Brotli | Zstandard) -> None:
    """Hold some pieces at most of 4 MB that came as some hundred bytes; refuse a window of 128 MB."""
    encoding = "br" if isinstance(decoder, Brotli) else "zstd"
    sizes = [len(piece) for piece in decoder.feed(compressed(encoding, b"\0" * 4_000_000))]
    assert sum(sizes) == 4_000_000
    assert max(sizes) <= 2 * PIECE_BYTES
    assert not decoder.is_cut
    if encoding == "zstd":
        options = {zstd.CompressionParameter.window_log: 27}
        compressor = zstd.ZstdCompressor(options=options)
        with pytest.raises(BodyError, match="not in the encoding"):
            list(decoder.feed(compressor.compress(b"x", compressor.FLUSH_BLOCK)))


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_an_encoding_whose_package_is_missing(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say so in the response, and not by an error of an import."""
    for name in ("brotli", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    found = reading_of(translate(b"", content_encoding=encoding))
    assert found.details["reason"] == "body_unreadable"
    assert not is_readable(encoding)
