"""A PostgreSQL for a peer, started by the code that starts the cloud's own, so with the same settings.

Usage: postgres_server.py FOLDER

Writes its URL to FOLDER/url and stops when it is told to.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from urllib.parse import quote

from apothic_server.store.launcher import EmbeddedPostgres


async def main(folder: Path) -> None:
    """Serve until SIGTERM."""
    store = EmbeddedPostgres(folder / "postgres")
    address = await store.start()
    place = f"{address.database}?host={quote(address.host, safe='')}&port={address.port}"
    (folder / "written").write_text(f"postgresql+psycopg://{address.user}:{quote(address.password)}@/{place}")
    (folder / "written").rename(folder / "url")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await store.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
