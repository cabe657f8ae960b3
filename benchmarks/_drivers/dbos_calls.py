"""Driver of DBOS on PostgreSQL: a workflow for each item, through a queue that runs two at a time.

Usage: dbos_calls.py FOLDER PYTHON

PYTHON starts the PostgreSQL.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import child, wait_until
from items import mapped, work
from rounds import claim_output, serve

LOOK_S = 0.01
"""Between two looks of who waits for a result, and of the queue for work; the defaults are a second."""


def main() -> None:
    """Measure until the input ends, then stop PostgreSQL."""
    answer = claim_output()
    folder, python = Path(sys.argv[1]), sys.argv[2]
    server = [python, str(Path(__file__).with_name("postgres_server.py")), str(folder)]
    with child(server) as process:
        wait_until((folder / "url").exists, "PostgreSQL", process)
        _serve(answer, (folder / "url").read_text())


def _serve(answer: Any, url: str) -> None:
    from dbos import DBOS

    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_migrations": True})
    item = DBOS.workflow()(work)
    DBOS.launch()
    queue = DBOS.register_queue("bench", worker_concurrency=2, polling_interval_sec=LOOK_S)
    handles: list[Any] = []

    def run(numbers: Sequence[int]) -> list[Any]:
        handles[:] = [queue.enqueue(item, number) for number in numbers]
        return [_outcome(handle) for handle in handles]

    def look(chosen: list[int]) -> None:
        for number in chosen:
            if handles[number].get_status().status not in {"SUCCESS", "ERROR"}:
                raise RuntimeError("an item has not ended")

    try:
        serve(answer, {}, extra={"map": mapped(run, look)})
    finally:
        DBOS.destroy()


def _outcome(handle: Any) -> Any:
    try:
        return handle.get_result(polling_interval_sec=LOOK_S)
    except ValueError as error:
        return error


if __name__ == "__main__":
    main()
