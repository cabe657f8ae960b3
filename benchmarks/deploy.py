"""How long a change of one module takes to its first result, beside a peer that restarts its worker (P17).

The app has 1 MB of files. Ours is `app.deploy()` and a call that waits for a new sandbox with the new code.

Usage: deploy.py [--quick] [--json FILE] [--calls N] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _contenders import Contender, start
from _machine import machine_line, moment
from _measuring import run
from _verdict import Goal, as_json, figures, goal_table, micros, table

CALLS, ROUNDS, WARM = 10, 5, 1
CONTENDERS = (
    Contender("ours", "Apothic, `app.deploy()` to the first result", "commit in PostgreSQL", "redeploy", "redeploy"),
    Contender("D", "Apothic, `app.deploy()` alone", "commit in PostgreSQL", "redeploy", "deploy"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools", "none", "httptools"),
    Contender("C", "Celery + Redis, restart of the worker to the first result", "none", "redeploy-celery", "redeploy"),
)
GOAL_US, STRETCH_US = 1_000_000.0, 300_000.0


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measure, _options())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    started = start(CONTENDERS[:3] if options.quick else CONTENDERS, folder, stack.callback)
    before = moment()
    measured = [one for one in CONTENDERS if one.driver in started.drivers]
    times: dict[str, list[list[int]]] = {one.key: [] for one in measured}
    for number in range(options.rounds):
        for one in measured:
            times[one.key].append(started.drivers[one.driver].round(one.cell, options.calls, WARM))
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    sent = started.drivers["redeploy"].ask({"extra": "sent"})
    line = machine_line(before, moment())
    found = {key: figures(rounds) for key, rounds in times.items()}
    reasons = {one.key: started.reasons.get(one.driver, "--quick") for one in CONTENDERS if one.key not in found}
    ours = found["ours"]
    bounds = [("P17", "1 s", GOAL_US), ("P17 stretch", "300 ms", STRETCH_US)]
    goals = [Goal(name, bound, micros(ours.p50), ours.p50 <= limit) for name, bound, limit in bounds]
    if "C" in found:
        goals.append(Goal("peer", f"1 C = {micros(found['C'].p50)}", micros(ours.p50), ours.p50 <= found["C"].p50))
    print(f"\n## A deploy\n\n{line}\n\n{options.rounds} interleaved rounds of {options.calls} deploys each.\n")
    print(table(found, reasons, CONTENDERS))
    print(f"\nEach deploy sent {sent['uploaded']:,} bytes of an archive of {sent['archive']:,}.\n\n{goal_table(goals)}")
    return {
        "machine": line,
        "calls": options.calls,
        "rounds": options.rounds,
        "figures_us": {key: asdict(value) for key, value in found.items()},
        "sent": sent,
        "not_measured": reasons,
        "goals": [as_json(goal) for goal in goals],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a change of code takes to its first result.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few calls, no peer that has to be installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--calls", type=int, help=f"deploys of a round (default {CALLS})")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS})")
    options = parser.parse_args()
    options.calls = options.calls or (2 if options.quick else CALLS)
    options.rounds = options.rounds or (2 if options.quick else ROUNDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
