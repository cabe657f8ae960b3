"""The Celery application of the benchmarks; tasks are acknowledged after they ran."""

from __future__ import annotations

import os

import holding
import items
from celery import Celery

url = os.environ["BENCH_REDIS_URL"]
app = Celery("bench", broker=url, backend=url)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    result_expires=600,
)


@app.task
def noop(x: int) -> int:
    """Return `x`."""
    return x


@app.task
def hold(port: int) -> None:
    """Run until cancelled."""
    holding.hold(port)


@app.task
def item(x: int) -> int:
    """Return `x`, as all items of a map do."""
    return items.work(x)
