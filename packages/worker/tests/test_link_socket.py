"""The connection under a link, at its end."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from apothic.wire.limits import LINK_FRAME_MAX
from apothic.wire.link_frames import Cut, FrameCutter, message_head
from apothic_worker.link_socket import LinkSocket
from apothic_worker.testing.scripted_server import ScriptedServer

pytestmark = pytest.mark.anyio


async def test_what_is_sent_while_the_connection_closes_is_dropped():
    async with ScriptedServer() as server:
        socket = LinkSocket(server.url, server.token, lambda _: None)
        await socket.open()
        closing = asyncio.ensure_future(socket.close(1000))
        await asyncio.sleep(0)

        assert not socket.closed.done()
        socket.send(b"late")
        await closing
        assert socket.closed.done()


SIZES = (0, 1, 125, 126, 65_535, 65_536, 300_000)


async def test_messages_of_every_size_pass_both_ways_whole_in_fragments_and_between_pings():
    async def echo(connection: ServerConnection) -> None:
        for _ in SIZES:
            message = await connection.recv()
            await connection.send(message)
            await connection.send([message[:50], b"", message[50:]])
            await (await connection.ping())
        await connection.close(4001)

    sent = [bytes(index % 251 for index in range(size)) for size in SIZES]
    got: list[bytes] = []
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        socket = LinkSocket(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "lw_x", got.append)
        await socket.open()
        for message in sent:
            socket.send(message)

        assert await socket.closed == "4001"
    assert got == [message for one in sent for message in (one, one)]


@given(
    st.lists(st.sampled_from([*SIZES[:5], 1_000]), max_size=6),
    st.lists(st.integers(1, 70_000), max_size=12),
    st.booleans(),
)
def test_frames_are_the_same_however_they_are_cut(sizes: list[int], cuts: list[int], of_client: bool):
    other = ClientProtocol(parse_uri("ws://x"), state=State.OPEN) if of_client else ServerProtocol(state=State.OPEN)
    frames: list[Cut] = []
    for number, size in enumerate(sizes):
        message = bytes([number]) * size
        other.send_binary(message)
        frames.append(Cut(b"".join(other.data_to_send()), message))
        other.send_ping(b"p")
        frames.append(Cut(b"".join(other.data_to_send()), None))
    data = b"".join(cut.frame for cut in frames)
    cutter, found = FrameCutter(size_max=LINK_FRAME_MAX, of_client=of_client), list[Cut]()
    for cut in [*cuts, len(data)]:
        found += cutter.feed(data[:cut])
        data = data[cut:]

    assert found == frames


@pytest.mark.parametrize(
    ("frame", "is_whole"),
    [
        (bytes((0x82, 127)) + (LINK_FRAME_MAX + 1).to_bytes(8, "big"), False),
        (bytes((0x82, 0x81)) + b"maskx", True),
        (bytes((0xC2, 1)) + b"x", True),
        (bytes((0x81, 1)) + b"x", True),
        (bytes((0x02, 1)) + b"x", True),
    ],
    ids=["too long", "masked", "reserved", "text", "fragment"],
)
def test_a_frame_that_is_no_whole_message_is_given_on_as_it_came(frame: bytes, is_whole: bool):
    rest = bytes((0x82, 1)) + b"y"
    found = FrameCutter(size_max=LINK_FRAME_MAX, of_client=False).feed(frame + rest)

    assert found == ([Cut(frame, None), Cut(rest, b"y")] if is_whole else [Cut(frame + rest, None)])


@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 65_535, 65_536])
def test_an_unmasked_message_of_a_client_is_left_to_the_machine(size: int):
    frame = message_head(size) + bytes(size)

    assert FrameCutter(size_max=LINK_FRAME_MAX, of_client=True).feed(frame) == [Cut(frame, None)]


async def test_a_message_beyond_the_bound_ends_the_connection_before_it_is_here():
    async def announce(connection: ServerConnection) -> None:
        connection.transport.write(bytes((0x82, 127)) + (LINK_FRAME_MAX + 1).to_bytes(8, "big"))
        await connection.wait_closed()
        codes.append(connection.close_code)
        ended.set()

    codes: list[int | None] = []
    ended = asyncio.Event()
    async with serve(announce, "127.0.0.1", 0, compression=None) as server:
        socket = LinkSocket(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "lw_x", print)
        await socket.open()
        await socket.closed
        await ended.wait()
    assert codes == [1009]
