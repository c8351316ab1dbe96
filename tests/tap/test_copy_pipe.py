"""The bounded pipe between forwarder and copier."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tap.copy_frames import BEGIN, END, HEAD, PIECE, CopyBeginning, CopyFrame, FrameReader
from tap.copy_pipe import LINGER, CopyPipe, bytes_of_bodies
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

import pytest

BEGINNING: CopyBeginning = {"translation": {"dialect": "openai.chat"}, "context": {}}


@pytest.fixture
async def ends() -> AsyncIterator[tuple[CopyPipe, socket.socket, socket.socket]]:
    """Yield a connected pipe with 64 KiB, and both ends of its socket."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)
    with ours, theirs:
        pipe = CopyPipe(64 * 1024)
        pipe.connect(ours)
        yield pipe, ours, theirs
        pipe.disconnect()


async def frames(pipe: CopyPipe, end: socket.socket) -> Sequence[tuple[int, int, bytes]]:
    """Read until nothing waits, and return the frames."""
    reader = FrameReader()
    found: list[CopyFrame] = []

    def read() -> bool:
        idle = pipe.idle.is_set()
        while True:
            try:
                found.extend(reader.feed(end.recv(10_000)))
            except BlockingIOError:
                return idle

    await wait_until(read, message="all frames have come")
    return list(found)


async def sends_are_due() -> None:
    """Wait until the pipe has tried to send what was appended before."""
    due = asyncio.Event()
    asyncio.get_running_loop().call_later(LINGER, due.set)
    await due.wait()


@given(
    st.lists(st.tuples(st.sampled_from([BEGIN, PIECE, END]), st.binary(max_size=20)), max_size=20),
    st.integers(0, 600),
)
def test_bytes_of_bodies_are_counted_to_any_end(sent: list[tuple[int, bytes]], end: int) -> None:
    """Count the bytes of pieces, and neither heads nor other frames, wherever the socket stopped."""
    frames = [(HEAD.pack(1, kind, len(payload)), payload) for kind, payload in sent]
    marks = b"".join(
        b"." * len(head) + (b"x" if head[4] == PIECE else b".") * len(payload) for head, payload in frames
    )
    assert bytes_of_bodies(frames, end) == marks[:end].count(b"x")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([BEGIN, PIECE, END]), st.binary(max_size=50))),
    st.integers(1, 40),
)
def test_frames_survive_any_division(sent: list[tuple[int, int, bytes]], step: int) -> None:
    """Read frames from pieces of any length."""
    data = b"".join(HEAD.pack(number, kind, len(payload)) + payload for number, kind, payload in sent)
    reader = FrameReader()
    found = [
        frame for start in range(0, len(data), step) for frame in reader.feed(data[start : start + step])
    ]
    assert found == sent


async def test_copies_come_out_in_order(ends: tuple[CopyPipe, socket.socket, socket.socket]) -> None:
    """Send pieces of two copies; bodies are counted without heads of frames."""
    pipe, _, theirs = ends
    first, second = pipe.begin(BEGINNING), pipe.begin(BEGINNING)
    first.piece(b"a")
    second.piece(b"bc")
    first.end("complete")
    first.end("cancelled")
    found = await frames(pipe, theirs)
    assert [(number, kind) for number, kind, _ in found] == [
        (1, BEGIN),
        (2, BEGIN),
        (1, PIECE),
        (2, PIECE),
        (1, END),
    ]
    assert found[-1] == (1, END, b"complete")
    assert (pipe.sent_bytes, pipe.waiting_body_bytes, pipe.waiting_bytes, pipe.dropped_bytes) == (3, 0, 0, {})


async def test_what_does_not_fit_is_dropped_and_counted(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Fill the pipe while nobody reads: memory stays bounded, the copy ends, and each byte is counted."""
    pipe, _, theirs = ends
    body, other = pipe.begin(BEGINNING), pipe.begin(BEGINNING)
    offered = 0
    while not body.is_lost:
        body.piece(b"x" * 5000)
        offered += 5000
        assert pipe.waiting_bytes <= 64 * 1024 + 1000
    body.piece(b"late")
    body.end("complete")
    assert pipe.sent_bytes + pipe.waiting_body_bytes + sum(pipe.dropped_bytes.values()) == offered + 4
    assert pipe.dropped_bytes["buffer_full"] > 4
    assert pipe.dropped_copies == {"buffer_full": 1}
    found = await frames(pipe, theirs)
    assert [frame for frame in found if frame[1] == END] == [(1, END, b"interrupted")]
    other.piece(b"fits again")
    assert (await frames(pipe, theirs)) == [(2, PIECE, b"fits again")]


async def test_a_copier_that_is_gone_loses_its_copies_only(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Drop what waits when the other end closes; a copy that begins with the next copier is whole."""
    pipe, _, theirs = ends
    body = pipe.begin(BEGINNING)
    theirs.close()
    body.piece(b"abc")
    await wait_until(lambda: not pipe.is_connected)
    body.piece(b"d")
    body.end("complete")
    assert (pipe.sent_bytes, pipe.dropped_bytes, pipe.dropped_copies) == (
        *(0, {"copier_gone": 4}),
        {"copier_gone": 1},
    )
    assert pipe.begin(BEGINNING).is_lost
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)
    with ours, theirs:
        pipe.connect(ours)
        body.piece(b"e")
        fresh = pipe.begin(BEGINNING)
        fresh.piece(b"f")
        assert [kind for _, kind, _ in await frames(pipe, theirs)] == [BEGIN, PIECE]
        pipe.disconnect()
    assert pipe.dropped_bytes == {"copier_gone": 5}


async def test_a_full_socket_is_sent_to_as_it_empties(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Send the rest of a slice, and what came after it, once the copier reads again."""
    pipe, ours, theirs = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = pipe.begin(BEGINNING)
    body.piece(b"x" * 50_000)
    whole = pipe.waiting_bytes
    await wait_until(lambda: pipe.waiting_bytes < whole, message="the socket took a part")
    assert pipe.waiting_bytes > 0
    body.piece(b"later")
    assert (pipe.waiting_body_bytes, pipe.idle.is_set()) == (50_005 - pipe.sent_bytes, False)
    assert (await frames(pipe, theirs))[1:] == [(1, PIECE, b"x" * 50_000), (1, PIECE, b"later")]
    assert (pipe.waiting_bytes, pipe.sent_bytes, pipe.dropped_bytes) == (0, 50_005, {})


async def test_the_books_say_what_a_socket_took_before_its_copier_went(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Count exactly the bytes that the socket took as sent, and the rest of their slice as dropped."""
    pipe, ours, theirs = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = pipe.begin(BEGINNING)
    body.piece(b"\xff" * 50_000)
    body.piece(b"y" * 10_000)
    await wait_until(lambda: pipe.sent_bytes, message="the socket took a part")
    pipe.disconnect()
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while data := theirs.recv(10_000):
            taken += data.count(b"\xff")
    assert 0 < taken == pipe.sent_bytes < 50_000
    assert (pipe.dropped_bytes, pipe.waiting_body_bytes) == ({"copier_gone": 60_000 - taken}, 0)


async def test_a_socket_that_takes_nothing_is_tried_again(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Keep a piece while the socket is full to the last byte."""
    pipe, ours, theirs = ends
    filled = 0
    for size in (1000, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += ours.send(b"-" * size)
    body = pipe.begin(BEGINNING)
    body.piece(b"abc")
    whole = pipe.waiting_bytes
    await sends_are_due()
    assert (pipe.waiting_bytes, pipe.waiting_body_bytes, pipe.sent_bytes) == (whole, 3, 0)
    while filled:
        filled -= len(theirs.recv(filled))
    assert [frame[1:] for frame in await frames(pipe, theirs)][1:] == [(PIECE, b"abc")]


async def test_what_waits_is_not_sent_to_the_next_copier(
    ends: tuple[CopyPipe, socket.socket, socket.socket],
) -> None:
    """Lose a copy whose copier goes before anything was sent, also if only its end is left."""
    pipe, ours, theirs = ends
    body, silent = pipe.begin(BEGINNING), pipe.begin(BEGINNING)
    body.piece(b"abc")
    pipe.disconnect()
    await sends_are_due()
    pipe.connect(ours)
    body.end("complete")
    silent.end("complete")
    pipe.begin(BEGINNING)
    assert [(number, kind) for number, kind, _ in await frames(pipe, theirs)] == [(3, BEGIN)]
    assert (pipe.dropped_bytes, pipe.dropped_copies) == ({"copier_gone": 3}, {"copier_gone": 2})
