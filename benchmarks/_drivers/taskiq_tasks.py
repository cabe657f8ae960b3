"""The taskiq application of the benchmarks: a Redis stream, whose messages are acknowledged after they ran."""

from __future__ import annotations

import os

import items
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

url = os.environ["BENCH_REDIS_URL"]
broker = RedisStreamBroker(url=url).with_result_backend(RedisAsyncResultBackend(redis_url=url, result_ex_time=600))


@broker.task
def item(x: int) -> int:
    """Return `x`, as all items of a map do."""
    return items.work(x)
