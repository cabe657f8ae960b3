"""Driver of taskiq: one Redis in memory, two worker processes; submit all, wait for each result.

Usage: taskiq_calls.py FOLDER REDIS-SERVER
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children import child
from items import mapped
from redis_store import redis
from rounds import claim_output, serve

LOOK_S = 0.01
AT_ONCE = 100


def main() -> None:
    """Measure until the input ends, then stop workers and Redis."""
    answer = claim_output()
    worker = [sys.executable, "-m", "taskiq", "worker", "taskiq_tasks:broker", "--workers", "2", "--log-level", "ERROR"]
    with contextlib.ExitStack() as stack, asyncio.Runner() as runner:
        stack.enter_context(redis(sys.argv[1], sys.argv[2]))
        stack.enter_context(child(worker, cwd=str(Path(__file__).parent)))
        from taskiq_tasks import broker

        runner.run(broker.startup())
        runner.run(_outcomes(range(4)))
        serve(answer, {}, extra={"map": mapped(lambda numbers: runner.run(_outcomes(numbers)))})
        runner.run(broker.shutdown())


async def _outcomes(numbers: Sequence[int]) -> list[Any]:
    from taskiq_tasks import item

    gate = asyncio.Semaphore(AT_ONCE)

    async def start(number: int) -> Any:
        async with gate:
            return await item.kiq(number)

    async def outcome(task: Any) -> Any:
        async with gate:
            result = await task.wait_result(check_interval=LOOK_S, timeout=120)
            return result.error or result.return_value

    tasks = await asyncio.gather(*(start(number) for number in numbers))
    return await asyncio.gather(*(outcome(task) for task in tasks))


if __name__ == "__main__":
    main()
