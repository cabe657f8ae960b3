"""Control planes that die. Each line of standard input is an order, and a fork of its own carries it out.

A fork starts, sends itself the requests of the order, says what all but the last answered, and is killed at the order's
point on the way of the last one. `arriving` is while the body of that one comes in; all others are failpoints.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from apothic_server import failpoints
from apothic_server.bootstrap import Cloud
from apothic_server.failpoints import CONSENT, VARIABLE
from apothic_server.store.address import StoreAddress
from apothic_server.testing.asgi import Answer, AsgiClient


async def carry_out(order: dict[str, Any]) -> None:
    address = StoreAddress(**order["address"])
    cloud = Cloud(address, Path(order["data"]), url="http://doomed.test", holder=order["holder"])
    await cloud.start(run_loops=False)
    client = AsgiClient(cloud.asgi, order["token"])
    *before, last = order["requests"]
    answers = [await send(client, request) for request in before]
    say({"answers": [[answer.status, answer.body.decode()] for answer in answers]})
    if order["point"] == "arriving":
        await arrive(client, last)
    failpoints.arm({VARIABLE: f"{order['point']}=kill", CONSENT: "1"})
    answer = await send(client, last)
    sys.stderr.write(f"survived with {answer.status}: {answer.body.decode()}\n")
    await cloud.stop()


async def send(client: AsgiClient, request: dict[str, Any]) -> Answer:
    return await client.request(request["method"], request["target"], headers=request["headers"], body=body(request))


async def arrive(client: AsgiClient, request: dict[str, Any]) -> None:
    """Send a body, but for its last byte, and die once it was taken."""
    data = body(request)
    headers = {**request["headers"], "content-length": str(len(data))}
    async with client.open(request["method"], request["target"], headers=headers, body=None) as exchange:
        exchange.incoming = Deadly()
        exchange.send_body(data[:-1], more=True)
        await exchange.start()


class Deadly(asyncio.Queue[Any]):
    """Kills the process that waits for more than there is."""

    async def get(self) -> Any:
        if self.empty():
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().get()


def body(request: dict[str, Any]) -> bytes:
    return base64.b64decode(request["body"])


def say(document: dict[str, Any]) -> None:
    os.write(1, json.dumps(document).encode() + b"\n")


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(carry_out(json.loads(line)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    say({"exit": os.waitstatus_to_exitcode(status)})
