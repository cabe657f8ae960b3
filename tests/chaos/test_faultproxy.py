"""What the way between two processes does to connections."""

import asyncio
import random
from contextlib import suppress

import pytest

from .faultproxy import FaultProxy, weather

pytestmark = pytest.mark.anyio


@pytest.fixture
async def echo():
    """A server that answers each line with the same line; remembers what arrived."""
    heard = asyncio.Queue()

    async def serve(reader, writer):
        with suppress(ConnectionError):
            while line := await reader.readline():
                heard.put_nowait(line)
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = FaultProxy(server.sockets[0].getsockname()[1], random.Random(1))
    await proxy.start()
    yield proxy, heard
    await proxy.stop()
    server.close()


@pytest.fixture
async def dial(echo):
    """Opens connections through the proxy; they are closed in the end."""
    opened = []

    async def open_one():
        opened.append(await asyncio.open_connection("127.0.0.1", echo[0].port))
        return opened[-1]

    yield open_one
    for _, writer in opened:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def said(reader, writer, line):
    writer.write(line)
    return await reader.readline()


def bad(kind):
    return weather(kind, random.Random(1))


async def test_without_a_fault_everything_passes(dial):
    assert await said(*await dial(), b"one\n") == b"one\n"


async def test_a_cut_resets_what_is_open_and_refuses_what_is_new(echo, dial):
    proxy, heard = echo
    old = await dial()
    assert await said(*old, b"one\n") == b"one\n"

    async with proxy.disturbed(bad("cut"), resets=True):
        with pytest.raises(ConnectionError):
            await old[0].readexactly(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await (await dial())[0].readexactly(1)

    assert await said(*await dial(), b"two\n") == b"two\n"
    assert [heard.get_nowait(), heard.get_nowait()] == [b"one\n", b"two\n"]


@pytest.mark.parametrize(("kind", "arrives"), [("hang", False), ("mute", False), ("deaf", True)])
async def test_what_is_held_back_arrives_when_the_fault_is_over(echo, dial, kind, arrives):
    proxy, heard = echo
    reader, writer = await dial()
    assert await said(reader, writer, b"one\n") == await heard.get()

    async with proxy.disturbed(bad(kind), resets=False):
        writer.write(b"two\n")
        if arrives:
            assert await heard.get() == b"two\n"
        answer = asyncio.create_task(reader.readline())
        passed, _ = await asyncio.wait([answer], timeout=0.05)
        assert not passed
        assert heard.empty()

    assert await answer == b"two\n"


async def test_what_a_fault_met_can_be_reset_in_the_end(echo, dial):
    proxy, heard = echo
    reader, writer = await dial()
    await said(reader, writer, b"one\n")

    async with proxy.disturbed(bad("mute"), resets=True):
        writer.write(b"two\n")
    with pytest.raises(ConnectionError):
        await reader.readexactly(1)

    assert heard.qsize() == 1


async def test_an_answer_is_lost_only_after_its_request_arrived(echo, dial):
    proxy, heard = echo
    reader, writer = await dial()
    await said(reader, writer, b"one\n")

    async with proxy.disturbed(bad("lose"), resets=False):
        writer.write(b"two\n")
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)

    assert [heard.get_nowait(), heard.get_nowait()] == [b"one\n", b"two\n"]
    assert proxy.lost == 1


async def test_a_delay_delays_every_piece(echo, dial):
    proxy, _ = echo
    reader, writer = await dial()
    loop, slow = asyncio.get_running_loop(), bad("delay")

    async with proxy.disturbed(slow, resets=False):
        began = loop.time()
        await said(reader, writer, b"one\n")

    assert loop.time() - began >= 2 * slow.delay_s
