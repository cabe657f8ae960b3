"""Driver of the store yardstick: commit of one small row over asyncpg, prepared, in an embedded PostgreSQL of its own.

The server is started by the code that starts the cloud's own, so its settings are the same.

Usage: postgres.py FOLDER
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from rounds import claim_output, serve

from apothic_server.store.launcher import EmbeddedPostgres

TABLE = (
    "CREATE TABLE commits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number int NOT NULL, note text NOT NULL)"
)


def main() -> None:
    """Measure until the input ends, then stop the server."""
    answer = claim_output()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        store = EmbeddedPostgres(Path(sys.argv[1]) / "postgres")
        address = runner.run(store.start())
        try:
            connection: Any = runner.run(_open(address.connect_args()))
            insert: Any = runner.run(connection.prepare("INSERT INTO commits (number, note) VALUES ($1, $2)"))
            serve(answer, {"call": lambda calls, warm: runner.run(_commit(insert, calls, warm))})
            runner.run(connection.close())
        finally:
            runner.run(store.stop())


async def _commit(insert: Any, calls: int, warm: int) -> list[int]:
    for number in range(warm):
        await insert.fetch(number, "a small row")
    times: list[int] = []
    for number in range(calls):
        began = time.perf_counter_ns()
        await insert.fetch(number, "a small row")
        times.append(time.perf_counter_ns() - began)
    return times


async def _open(arguments: dict[str, Any]) -> Any:
    connection: Any = await asyncpg.connect(**arguments)
    await connection.execute(TABLE)
    return connection


if __name__ == "__main__":
    main()
