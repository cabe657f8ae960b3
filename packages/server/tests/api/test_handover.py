"""Large values of processes on the server's machine, on its Unix socket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat

import pytest

from apothic.wire.handover import NotHandedOver, begin_put, open_file, send
from apothic.wire.large import Reference
from apothic_server.api.local.handover import Handover
from apothic_server.testing.asgi import AsgiClient

pytestmark = pytest.mark.anyio
DATA = bytes(range(256)) * 8192
VALUE = Reference(hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.fixture
async def handover(cloud, tmp_path):
    folder = tmp_path / ("a folder whose path is longer than the address of a socket may be " * 2)
    folder.mkdir()
    found = Handover(folder, cloud.inner.services)
    found.start()
    yield found
    await found.stop()


def put(handover, key, data=DATA, size=None):
    sock = begin_put(str(handover.path), size or len(data), authorization=f"Bearer {key}")
    return send(sock, len(data), [memoryview(data)[:1_000_000], memoryview(data)[1_000_000:]])


def give(handover, key, value=VALUE):
    descriptor, _ = open_file(str(handover.path), value, authorization=f"Bearer {key}")
    try:
        return os.pread(descriptor, value.size_bytes + 1, 0)
    finally:
        os.close(descriptor)


async def refused(function, *arguments):
    with pytest.raises(NotHandedOver) as caught:
        await asyncio.to_thread(function, *arguments)
    return str(caught.value)


async def test_a_value_is_named_by_the_server_and_the_same_as_over_http(handover, cloud, tmp_path):
    assert stat.S_IMODE(handover.path.stat().st_mode) == 0o600
    assert await asyncio.to_thread(put, handover, cloud.key) == VALUE
    assert await asyncio.to_thread(give, handover, cloud.key) == DATA
    whole = await AsgiClient(cloud.asgi, cloud.key).request("GET", f"/v1/blobs/{VALUE.sha256}")
    assert whole.body == DATA
    assert await asyncio.to_thread(put, handover, cloud.key) == VALUE
    assert list((tmp_path / "values" / ".incoming").iterdir()) == []


async def test_nobody_gets_or_gives_a_value_without_the_right_to(handover, cloud):
    await asyncio.to_thread(put, handover, cloud.key)

    await refused(give, handover, cloud.other_key)
    for key in ("", "lk_wrong", None):
        await refused(give, handover, key)
        await refused(put, handover, key)
    reader = Reference(VALUE.sha256, VALUE.size_bytes - 1)
    assert "another file" in await refused(give, handover, cloud.key, reader)


async def test_what_there_is_no_room_for_is_refused_before_it_is_sent(handover, cloud):
    cloud.inner.large_values._org_bytes_max = len(DATA)

    for size in (len(DATA) + 1, 5 * 1024**3 + 1, 0, -1):
        with pytest.raises(NotHandedOver):
            await asyncio.to_thread(begin_put, str(handover.path), size, authorization=f"Bearer {cloud.key}")
    assert await asyncio.to_thread(put, handover, cloud.key) == VALUE


async def test_a_value_that_breaks_off_leaves_nothing(handover, cloud, tmp_path):
    def break_off():
        with begin_put(str(handover.path), len(DATA), authorization=f"Bearer {cloud.key}") as sock:
            sock.sendall(DATA[:-1])
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(4096)

    assert b"stored" not in await asyncio.to_thread(break_off)
    await refused(give, handover, cloud.key)
    assert [path for path in (tmp_path / "values").rglob("*") if path.is_file()] == []


async def test_who_sends_nothing_does_not_hold_up_a_stop(handover, cloud):
    begun = await asyncio.to_thread(begin_put, str(handover.path), len(DATA), authorization=f"Bearer {cloud.key}")
    with begun:
        async with asyncio.timeout(20):
            await handover.stop()
        assert await asyncio.to_thread(begun.recv, 1) == b""
    await refused(put, handover, cloud.key)
