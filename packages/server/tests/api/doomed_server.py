"""A control plane that sends itself one request and is killed at a failpoint on the way."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from apothic_server import failpoints
from apothic_server.bootstrap import Cloud
from apothic_server.store.address import StoreAddress
from apothic_server.testing.asgi import AsgiClient


async def main() -> None:
    order = json.loads(sys.stdin.read())
    address = StoreAddress(**order["address"])
    cloud = Cloud(address, Path(order["data"]), url="http://doomed.test", holder=order["holder"])
    await cloud.start(run_loops=False)
    failpoints.arm(os.environ)
    client = AsgiClient(cloud.asgi, order["token"])
    answer = await client.request("POST", order["target"], json=order["body"], headers={"Idempotency-Key": "k"})
    sys.stdout.write(f"survived with {answer.status}: {answer.body.decode()}\n")
    await cloud.stop()


asyncio.run(main())
