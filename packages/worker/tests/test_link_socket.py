"""The connection under a link, at its end."""

import asyncio

import pytest

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
