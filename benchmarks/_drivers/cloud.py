"""Driver of Apothic itself: `apothic up` with its shipped defaults in a folder of its own, the real SDK over HTTP.

Usage: cloud.py FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from children import child, wait_until
from holding import cancelled
from rounds import claim_output, serve, timed
from watching import Extra, Feeder, Watchers, watched

NOOP = Path(__file__).parent.parent / "_noop" / "noop.py"
CALLERS = 64
COUNTERS = {"commits": "apothic_store_commits_total", "records": "apothic_store_records_total"}


def main() -> None:
    """Measure until the input ends, then stop the cloud."""
    answer = claim_output()
    folder = Path(sys.argv[1])
    for name in [name for name in os.environ if name.startswith("APOTHIC_")]:
        del os.environ[name]
    program = str(Path(sys.executable).with_name("apothic"))
    endpoint = folder / "endpoint.json"
    command = [program, "up", "--data", str(folder / "data"), "--port", "0", "--endpoint", str(endpoint)]
    with child(command, cwd=folder) as process:
        wait_until(endpoint.exists, "apothic up", process)
        place = json.loads(endpoint.read_text())
        os.environ.update(APOTHIC_BASE_URL=place["url"], APOTHIC_API_KEY=place["key"])
        subprocess.run([sys.executable, str(NOOP)], check=True, stdout=sys.stderr, cwd=NOOP.parent)
        _serve(answer, place)


def _serve(answer: Any, place: dict[str, Any]) -> None:
    from apothic import RemoteFunction

    noop = RemoteFunction.from_name("bench-call", "noop")
    hold = RemoteFunction.from_name("bench-call", "hold")

    def call(number: int) -> None:
        if noop.remote(number) != number:
            raise RuntimeError("a call returned another call's value")

    def burst(request: dict[str, Any]) -> dict[str, Any]:
        """`calls` calls from `CALLERS` threads, each one at a time."""
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(call, range(CALLERS * 2)))
            before, began = _counters(place), time.perf_counter()
            list(pool.map(call, range(request["calls"])))
            seconds, after = time.perf_counter() - began, _counters(place)
        return {"seconds": seconds, **{name: after[name] - before[name] for name in after}}

    extra = {"counters": lambda _: _counters(place), "burst": burst, **_streamed(place)}
    cells = {"call": timed(call), "cancel": cancelled(hold.spawn, lambda job: job.cancel())}
    serve(answer, cells, {"pid": place["pid"]}, extra)


def _streamed(place: dict[str, Any]) -> Extra:
    """Return the requests that measure the stream of a job whose generator yields what it is sent."""
    from apothic import RemoteFunction

    address = urllib.parse.urlsplit(place["url"])
    watchers = Watchers((address.hostname or "", address.port or 80))
    feeder = Feeder()

    def start(_: dict[str, Any]) -> dict[str, Any]:
        job = RemoteFunction.from_name("bench-call", "ticks").spawn(feeder.port)
        feeder.accept()
        watchers.head = (
            f"GET /v1/jobs/{urllib.parse.quote(job.job_id)}/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: Bearer {place['key']}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()
        return {}

    return {"stream": start, **watched(watchers, feeder.send, place["pid"])}


def _counters(place: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"{place['url']}/metrics", headers={"Authorization": f"Bearer {place['key']}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        lines = response.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[metric]) for name, metric in COUNTERS.items()}


if __name__ == "__main__":
    main()
