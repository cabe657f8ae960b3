"""Many queued jobs at once: copies of one that waits, written into the store of a running cloud."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

COPY = """
    INSERT INTO jobs (id, org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        arguments_python, next_index, created_by, created_at)
    SELECT lpad(n::text, 26, '0'), org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        arguments_python, next_index, created_by, created_at
    FROM (SELECT * FROM jobs WHERE status = 'queued' LIMIT 1) AS queued, generate_series(1, $1) AS n
"""
WAIT_S = 600.0


def fill(data: Path, count: int) -> float:
    """Write so many copies of a queued job, which the cloud knows of after its next start.

    Args:
        data: Folder of a running cloud.

    Returns:
        The seconds that a plain read of all unfinished jobs takes.
    """
    return asyncio.run(_fill(data / "postgres", count))


async def _fill(folder: Path, count: int) -> float:
    from apothic_server.store.address import StoreAddress
    from apothic_server.store.connection import connect
    from apothic_server.store.postmaster import find_postmaster
    from apothic_server.store.recovery import SQL

    server = find_postmaster(folder / "data")
    assert server is not None, "the cloud runs"
    password = (folder / "password").read_text().strip()
    address = StoreAddress(host=server.socket_folder, user="apothic", password=password, database="apothic")
    connection = await connect(address, name="benchmark", deadline_s=WAIT_S)
    try:
        await connection.execute(COPY, count)
        read = SQL["list_unfinished_jobs"]
        began = time.perf_counter()
        rows = await connection.fetch(read, "", count)
        assert len(rows) == count
        return time.perf_counter() - began
    finally:
        await connection.close()
