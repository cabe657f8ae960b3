"""The Redis of a peer. Standard library only: drivers run in the environments of the contenders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from children import child, free_port, listens, wait_until


@contextlib.contextmanager
def redis(folder: str | Path, program: str, *, is_on_disk: bool = False) -> Generator[None]:
    """Run a Redis until the block ends; `BENCH_REDIS_URL` tells where.

    Args:
        is_on_disk: Whether each write is on disk before its answer; nothing is otherwise.
    """
    port = free_port()
    os.environ["BENCH_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    storage = ["--appendonly", "yes", "--appendfsync", "always"] if is_on_disk else ["--appendonly", "no"]
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with child([program, *place, *storage]) as process:
        wait_until(lambda: listens(port), "redis-server", process)
        yield
