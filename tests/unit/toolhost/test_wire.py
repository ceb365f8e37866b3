"""Frames between runtime and tool host, however the bytes of a stream happen to be cut."""

import asyncio
import struct

import pytest

from remit_agent_runtime.toolhost import wire


async def bodies_of(*chunks: bytes) -> list[bytes]:
    """What a reader makes of these chunks, each of which arrives while it waits."""
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for chunk in chunks:
            reader.feed_data(chunk)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.ensure_future(feed())
    found = [body async for body in wire.frames(reader)]
    await feeding
    return found


def framed(*bodies: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
async def test_frames_come_out_whole_and_in_order_however_they_are_cut(size):
    bodies = [b"{}", b"", b'{"id":1}', b"x" * 100]
    stream = framed(*bodies)
    assert await bodies_of(*(stream[at : at + size] for at in range(0, len(stream), size))) == bodies


async def test_what_came_together_is_told_apart():
    assert await bodies_of(framed(b"1", b"2") + framed(b"3")[:2], framed(b"3")[2:]) == [b"1", b"2", b"3"]


async def test_a_frame_that_was_cut_off_by_the_end_is_none():
    assert await bodies_of(framed(b"whole"), framed(b"cut off")[:-1]) == [b"whole"]


async def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(wire.FrameTooLarge):
        await bodies_of(framed(b"1") + struct.pack(">I", wire.MAX_FRAME_BYTES + 1))
