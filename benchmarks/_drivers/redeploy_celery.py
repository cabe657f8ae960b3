"""Driver of Celery for deploys: change one module, restart the worker, submit, wait for the new result.

Usage: redeploy_celery.py FOLDER REDIS-SERVER
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path

from changing import change, lay_out
from children import child
from redis_store import redis
from rounds import claim_output, serve, timed

APP = """
import os
import signal
from celery import Celery
import ballast, changing

url = os.environ["BENCH_REDIS_URL"]
app = Celery("redeployed", broker=url, backend=url)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False)


@app.task(name="number")
def number() -> int:
    return changing.NUMBER
"""
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def main() -> None:
    """Measure until the input ends, then stop worker and Redis."""
    answer = claim_output()
    folder, program = Path(sys.argv[1]), sys.argv[2]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    project = folder / "project"
    lay_out(project, APP)
    sys.path.insert(0, str(project))
    worker = [sys.executable, "-m", "celery", "-A", "redeployed", "worker", "-c", "2", "-l", "ERROR", *QUIET]
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(redis(folder, program))
        from redeployed import number as task

        running = stack.enter_context(contextlib.ExitStack())
        running.enter_context(child(worker, stop=signal.SIGQUIT, cwd=project))

        def redeploy(_: int) -> None:
            number = next(numbers)
            change(project, number)
            running.close()
            running.enter_context(child(worker, stop=signal.SIGQUIT, cwd=project))
            if task.delay().get(timeout=60, interval=0.001) != number:
                raise RuntimeError("a call ran an older version")

        redeploy(0)
        serve(answer, {"redeploy": timed(redeploy)})


if __name__ == "__main__":
    main()
