"""Driver of Celery: one Redis, a prefork worker with two processes, `acks_late`; submit, wait for the result.

Usage: celery_calls.py FOLDER REDIS-SERVER memory | aof
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import child
from holding import cancelled
from items import mapped
from redis_store import redis
from rounds import claim_output, serve, timed

QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def main() -> None:
    """Measure until the input ends, then stop worker and Redis."""
    answer = claim_output()
    folder, program, kind = sys.argv[1:]
    here = str(Path(__file__).parent)
    worker = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "ERROR", *QUIET]
    with contextlib.ExitStack() as stack:
        stack.enter_context(redis(folder, program, is_on_disk=kind == "aof"))
        stack.enter_context(child(worker, cwd=here))
        from celery_tasks import hold, noop

        noop.delay(0).get(timeout=60)
        cells = {
            "call": timed(lambda number: noop.delay(number).get(timeout=60, interval=0.001)),
            "cancel": cancelled(hold.delay, lambda result: result.revoke(terminate=True, signal="SIGKILL")),
        }
        results: list[Any] = []
        serve(answer, cells, extra={"map": _mapped(results)})
        results.clear()  # each says goodbye to Redis


def _mapped(results: list[Any]) -> Any:
    from celery_tasks import app, item

    def run(numbers: Sequence[int]) -> list[Any]:
        results[:] = [item.delay(number) for number in numbers]
        return [result.get(timeout=120, interval=0.001, propagate=False) for result in results]

    def look(chosen: list[int]) -> None:
        for number in chosen:
            if app.AsyncResult(results[number].id).state not in {"SUCCESS", "FAILURE"}:
                raise RuntimeError("an item has not ended")

    return mapped(run, look)


if __name__ == "__main__":
    main()
