"""The listener stops: what is open gets its time, and what is still open then is answered all the same."""

from __future__ import annotations

import asyncio
import json

import pytest
import structlog

from apothic_server.api.shared.asgi import Face
from apothic_server.api.shared.operations import Operation
from apothic_server.api.shared.request import Request
from apothic_server.api.shared.response import Response
from apothic_server.domain.access import Actor, Audience, Policy
from apothic_server.domain.errors import Unauthenticated
from apothic_server.listener import Listener, bind

pytestmark = pytest.mark.anyio


async def nobody(token: str, attempt: str) -> Actor:
    raise Unauthenticated("nobody has a key here")


async def test_a_request_that_outlives_the_grace_is_told_to_come_again() -> None:
    reached = asyncio.Event()

    async def for_ever(request: Request) -> Response:
        reached.set()
        return await asyncio.get_running_loop().create_future()

    waiting = Operation(
        id="waiting",
        method="GET",
        path="/x",
        policy=Policy(Audience.PUBLIC),
        handler=for_ever,
        statuses=frozenset({200}),
    )
    face = Face([waiting], authenticate=nobody, make_request_id=lambda: "request-1", log=structlog.get_logger())
    bound = bind("127.0.0.1", 0)
    listener = Listener(face, bound, grace_s=0)
    listener.start()
    reader, writer = await asyncio.open_connection(*bound.getsockname())
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    await reached.wait()

    await listener.stop()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.split(b"\r\n")[0] == b"HTTP/1.1 503 Service Unavailable"
    assert b"\r\nretry-after: 1" in head.lower()
    assert json.loads(body)["code"] == "unavailable"
