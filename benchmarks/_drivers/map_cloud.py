"""Driver of Apothic for maps: two runners; a map, and calls from many callers.

Usage: map_cloud.py FOLDER [OPTION OF `apothic up` …]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds import burst, cloud, counted, deploy
from items import mapped
from rounds import claim_output, serve


def main() -> None:
    """Measure until the input ends, then stop the cloud."""
    answer = claim_output()
    with cloud(Path(sys.argv[1]), *sys.argv[2:]) as place:
        deploy("items")
        _serve(answer, place)


def _serve(answer: Any, place: dict[str, Any]) -> None:
    from apothic import ControlPlaneClient, Job, RemoteExecutionError, RemoteFunction

    item = RemoteFunction.from_name("bench-map", "item")
    client = ControlPlaneClient.from_env()
    last: list[str] = []

    def run(numbers: Sequence[int]) -> list[Any]:
        found = item.map(numbers, errors="collect")
        failed = next(one for one in found if isinstance(one, RemoteExecutionError))
        last[:] = [str(failed.job_id).rpartition(".")[0]]
        return found

    def look(chosen: list[int]) -> None:
        for number in chosen:
            job = Job(f"{last[0]}.{number}", client)
            events = [event.event for event in job.watch()]
            if job.status() not in {"succeeded", "failed"} or "job.end" not in events:
                raise RuntimeError(f"{job.job_id} has the events {events}")

    def call(number: int) -> None:
        if item.remote(number * 1_000) != number * 1_000:
            raise RuntimeError("a call returned another call's value")

    extra = {
        "map": counted(place, mapped(run, look)),
        "burst": counted(place, lambda request: burst(call, request["callers"], request["calls"])),
    }
    serve(answer, {}, {"pid": place["pid"]}, extra)


if __name__ == "__main__":
    main()
