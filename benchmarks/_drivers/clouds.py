"""A cloud of a benchmark: `apothic up` with its shipped defaults in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from children import child, wait_until

PROGRAM = Path(sys.executable).with_name("apothic")
APPS = Path(__file__).parent.parent / "_noop"
COUNTERS = {"commits": "apothic_store_commits_total", "records": "apothic_store_records_total"}


@contextlib.contextmanager
def cloud(folder: Path, *options: str) -> Generator[dict[str, Any]]:
    """Run a cloud until the block ends; the SDK of this process finds it. Gives its `url`, `key` and `pid`."""
    for name in [name for name in os.environ if name.startswith("APOTHIC_")]:
        del os.environ[name]
    endpoint = folder / "endpoint.json"
    command = [PROGRAM, "up", "--data", folder / "data", "--port", "0", "--endpoint", endpoint, *options]
    with child([str(word) for word in command], cwd=folder) as process:
        wait_until(endpoint.exists, "apothic up", process)
        place = json.loads(endpoint.read_text())
        os.environ.update(APOTHIC_BASE_URL=place["url"], APOTHIC_API_KEY=place["key"], APOTHIC_QUIET="1")
        yield place


def deploy(app: str) -> None:
    """Deploy one of the apps of the benchmarks."""
    subprocess.run([sys.executable, str(APPS / f"{app}.py")], check=True, stdout=sys.stderr, cwd=APPS)


Request = Callable[[dict[str, Any]], dict[str, Any]]


def burst(call: Callable[[int], object], callers: int, calls: int) -> dict[str, Any]:
    """Make `calls` calls from `callers` threads, each one at a time; tells the seconds."""
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers * 2)))
        began = time.perf_counter()
        list(pool.map(call, range(calls)))
        return {"seconds": time.perf_counter() - began}


def counted(place: dict[str, Any], request: Request) -> Request:
    """Return a request whose answer also tells how often the cloud committed, and how many records."""

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        before = counters(place)
        told = request(asked)
        after = counters(place)
        return {**told, **{name: after[name] - before[name] for name in after}}

    return answer


def counters(place: dict[str, Any]) -> dict[str, Any]:
    """Return the counters of the store."""
    request = urllib.request.Request(f"{place['url']}/metrics", headers={"Authorization": f"Bearer {place['key']}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        lines = response.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[metric]) for name, metric in COUNTERS.items()}
