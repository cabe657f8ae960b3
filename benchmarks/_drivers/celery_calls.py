"""Driver of Celery: one Redis, a prefork worker with two processes, `acks_late`; submit, wait for the result.

Usage: celery_calls.py FOLDER REDIS-SERVER memory | aof
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from children import child, free_port, listens, wait_until
from holding import cancelled
from rounds import claim_output, serve, timed

QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def main() -> None:
    """Measure until the input ends, then stop worker and Redis."""
    answer = claim_output()
    folder, redis, kind = sys.argv[1:]
    port = free_port()
    os.environ["BENCH_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    here = str(Path(__file__).parent)
    storage = ["--appendonly", "yes", "--appendfsync", "always"] if kind == "aof" else ["--appendonly", "no"]
    store = [redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *storage]
    worker = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "ERROR", *QUIET]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(child(store))
        wait_until(lambda: listens(port), "redis-server", process)
        stack.enter_context(child(worker, cwd=here))
        from celery_tasks import hold, noop

        noop.delay(0).get(timeout=60)
        cells = {
            "call": timed(lambda number: noop.delay(number).get(timeout=60, interval=0.001)),
            "cancel": cancelled(hold.delay, lambda result: result.revoke(terminate=True, signal="SIGKILL")),
        }
        serve(answer, cells)


if __name__ == "__main__":
    main()
