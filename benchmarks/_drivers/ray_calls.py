"""Driver of Ray: one local node with two processors; a task, and a call of an actor that lives.

Usage: ray_calls.py
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import holding
from items import fails, mapped, work
from rounds import claim_output, serve, timed

STORE_BYTES = 200 << 20


def main() -> None:
    """Measure until the input ends, then stop the node."""
    answer = claim_output()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    # The folder holds sockets, whose paths are limited to 107 bytes.
    folder = tempfile.mkdtemp(prefix="bench-", dir="/tmp")
    try:
        _measure(answer, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(answer: object, folder: str) -> None:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
        _temp_dir=folder,
    )
    try:
        task = ray.remote(_noop)
        hold = ray.remote(holding.hold).options(max_retries=0)
        actor = ray.remote(_Noop).remote()
        cells = {
            "task": timed(lambda number: ray.get(task.remote(number))),
            "actor": timed(lambda number: ray.get(actor.call.remote(number))),
            "cancel": holding.cancelled(hold.remote, lambda reference: ray.cancel(reference, force=True)),
        }
        serve(answer, cells, extra={"map": _mapped(ray)})
    finally:
        ray.shutdown()


def _mapped(ray: Any) -> Any:
    task = ray.remote(work)

    def run(numbers: Sequence[int]) -> list[Any]:
        references = [task.remote(number) for number in numbers]
        good = [one for number, one in zip(numbers, references, strict=True) if not fails(number)]
        values = iter(ray.get(good))
        return [
            _error(ray, one) if fails(number) else next(values) for number, one in zip(numbers, references, strict=True)
        ]

    return mapped(run)


def _error(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error


def _noop(x: int) -> int:
    return x


class _Noop:
    def call(self, x: int) -> int:
        return x


if __name__ == "__main__":
    main()
