"""The connection under a link, at the server's end, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from apothic.wire.limits import LINK_FRAME_MAX
from apothic_server.api.links.socket import SOCKET, LinkSocket
from apothic_server.api.shared.connection import Connection

pytestmark = pytest.mark.anyio

SIZES = (0, 1, 125, 126, 65_535, 65_536, 300_000)


@asynccontextmanager
async def linked(act: Callable[[LinkSocket, bytes], None]) -> AsyncGenerator[ClientConnection]:
    """Give a client's end of a connection whose messages the server's end hands to `act`."""

    async def app(scope, receive, send) -> None:
        await receive()
        link: LinkSocket = scope["state"][SOCKET]
        link.take_over(lambda message: act(link, message))
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 1001})

    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=Connection,
        ws=LinkSocket,
        ws_max_size=LINK_FRAME_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
    )
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(config, state, {}), sock=bound)
    host, port = bound.getsockname()
    try:
        async with connect(f"ws://{host}:{port}/", compression=None, max_size=LINK_FRAME_MAX) as client:
            yield client
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*state.tasks)


async def test_messages_of_every_size_pass_both_ways_whole_in_fragments_and_between_pings():
    async with linked(lambda link, message: link.write(message)) as client:
        for size in SIZES:
            message = bytes(index % 251 for index in range(size))
            await client.send(message)
            await (await client.ping())
            await client.send([message[:50], b"", message[50:]])

            assert await client.recv() == message
            assert await client.recv() == message


async def test_a_message_beyond_the_bound_ends_the_connection_before_it_is_here():
    async with linked(lambda link, message: link.write(message)) as client:
        client.transport.write(bytes((0x82, 0xFF)) + (LINK_FRAME_MAX + 1).to_bytes(8, "big"))

        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert client.close_code == 1009


async def test_a_message_that_is_not_masked_ends_the_connection_and_is_not_acted_on():
    heard: list[bytes] = []
    async with linked(lambda link, message: heard.append(message)) as client:
        client.transport.write(bytes((0x82, 1)) + b"x")

        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert client.close_code == 1002
    assert heard == []


async def test_what_is_read_in_a_pause_waits_and_nothing_is_sent_once_the_connection_closes():
    heard: list[bytes] = []
    paused, links = asyncio.Event(), list[LinkSocket]()

    def act(link: LinkSocket, message: bytes) -> None:
        heard.append(message)
        if message == b"pause":
            link.pause()
            links.append(link)
            paused.set()
        else:
            link.write(b"heard")

    async with linked(act) as client:
        await client.send(b"pause")
        await paused.wait()
        await client.send(b"later")
        for _ in range(10):
            await asyncio.sleep(0)
        was_heard = [*heard]
        links[0].resume()
        await client.recv()
        links[0].transport.abort()
        links[0].write(b"nobody reads it")

    assert was_heard == [b"pause"]
    assert heard == [b"pause", b"later"]
