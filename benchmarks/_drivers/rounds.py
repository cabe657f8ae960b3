"""Protocol between the benchmark and a driver, the process that measures one contender.

A driver prints `{"ready": …}` once its contender answers. Then each line of its input asks for a round,
`{"cell": name, "calls": n, "warm": n}`, and is answered by `{"ns": […]}`, the time of each call in order. The end of
its input tells it to stop. Standard library only: drivers run in the environments of the contenders.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def claim_output() -> Callable[[dict[str, Any]], None]:
    """Keep standard output for answers: whatever else this process or its children print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    return answer


Round = Callable[[int, int], list[int]]
"""Makes some calls after some more to warm up; returns the nanoseconds of each in order."""


def timed(call: Callable[[int], object]) -> Round:
    """Return the round of a call that blocks until its result is there; it gets the number of the call."""

    def run(calls: int, warm: int) -> list[int]:
        for number in range(warm):
            call(number)
        times: list[int] = []
        clock = time.perf_counter_ns
        for number in range(calls):
            began = clock()
            call(number)
            times.append(clock() - began)
        return times

    return run


def serve(
    answer: Callable[[dict[str, Any]], None],
    cells: Mapping[str, Round],
    ready: Mapping[str, Any] | None = None,
    extra: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> None:
    """Answer requests until the input ends.

    Args:
        answer: Writes one answer.
        cells: What can be measured.
        ready: Told with the first answer.
        extra: Further requests by name, each from the request to its answer.
    """
    answer({"ready": dict(ready or {})})
    for line in sys.stdin:
        request = json.loads(line)
        if extra is not None and request.get("extra") in extra:
            answer(extra[request["extra"]](request))
        else:
            answer({"ns": cells[request["cell"]](request["calls"], request["warm"])})
