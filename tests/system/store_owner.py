"""Runs a database server in the folder of its one argument, prints its URL, and stops it after a line of input."""

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import quote

from apothic_server.store.launcher import EmbeddedPostgres


async def own(folder):
    server = EmbeddedPostgres(folder)
    address = await server.start()
    url = (
        f"postgresql://{address.user}:{quote(address.password, safe='')}@/{address.database}?host={quote(address.host)}"
    )
    print(json.dumps({"url": url}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()


asyncio.run(own(Path(sys.argv[1])))
