"""Driver of Apothic itself: `apothic up` with its shipped defaults in a folder of its own, the real SDK over HTTP.

Usage: cloud.py FOLDER [OPTION OF `apothic up` …]
"""

from __future__ import annotations

import sys
import urllib.parse
from pathlib import Path
from typing import Any

from clouds import burst, cloud, counted, counters, deploy
from holding import cancelled
from rounds import claim_output, serve, timed
from watching import Extra, Feeder, Watchers, watched


def main() -> None:
    """Measure until the input ends, then stop the cloud."""
    answer = claim_output()
    with cloud(Path(sys.argv[1]), *sys.argv[2:]) as place:
        deploy("noop")
        _serve(answer, place)


def _serve(answer: Any, place: dict[str, Any]) -> None:
    from apothic import RemoteFunction

    noop = RemoteFunction.from_name("bench-call", "noop")
    hold = RemoteFunction.from_name("bench-call", "hold")

    def call(number: int) -> None:
        if noop.remote(number) != number:
            raise RuntimeError("a call returned another call's value")

    many = counted(place, lambda request: burst(call, request["callers"], request["calls"]))
    extra = {"counters": lambda _: counters(place), "burst": many, **_streamed(place)}
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

    return {"stream": start, **watched(watchers, feeder.send)}


if __name__ == "__main__":
    main()
