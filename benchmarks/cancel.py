"""How long a cancelled function goes on, beside peers that kill it, in one run and one table.

Timed from the caller's request to the end of a connection that the function holds, so to the death of its process.

Usage: cancel.py [--quick] [--json FILE] [--calls N] [--rounds N]

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

CALLS, ROUNDS, WARM = 20, 5, 2
CONTENDERS = (
    Contender("ours", "Apothic, `job.cancel()`: TERM, then KILL", "commit in PostgreSQL first", "cloud", "cancel"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools", "none", "httptools"),
    Contender("C", "Celery + Redis, `revoke(terminate, KILL)`", "none", "celery", "cancel"),
    Contender("RT", "Ray, `cancel(force=True)`", "none", "ray", "cancel"),
)
PUSH_BOUND_US = 2_000_000.0
"""A cancel reaches a connected worker within 2 s (G4.2)."""


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measure, _options())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    started = start(CONTENDERS[:2] if options.quick else CONTENDERS, folder, stack.callback)
    before = moment()
    measured = [one for one in CONTENDERS if one.driver in started.drivers]
    times: dict[str, list[list[int]]] = {one.key: [] for one in measured}
    for number in range(options.rounds):
        for one in measured:
            times[one.key].append(started.drivers[one.driver].round(one.cell, options.calls, WARM))
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    line = machine_line(before, moment())
    found = {key: figures(rounds) for key, rounds in times.items()}
    reasons = {one.key: started.reasons.get(one.driver, "--quick") for one in CONTENDERS if one.key not in found}
    ours = found["ours"]
    goals = [Goal("G4.2", "2 s to the p99", micros(ours.p99), ours.p99 <= PUSH_BOUND_US)]
    goals += [
        Goal("peer", f"1 {key} = {micros(found[key].p50)}", micros(ours.p50), ours.p50 <= found[key].p50)
        for key in ("C", "RT")
        if key in found
    ]
    print(f"\n## A cancel\n\n{line}\n\n{options.rounds} interleaved rounds of {options.calls} cancels each.\n")
    print(table(found, reasons, CONTENDERS))
    print(f"\n{goal_table(goals)}")
    return {
        "machine": line,
        "calls": options.calls,
        "rounds": options.rounds,
        "figures_us": {key: asdict(value) for key, value in found.items()},
        "not_measured": reasons,
        "goals": [as_json(goal) for goal in goals],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a cancelled function goes on, beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few calls, no peer that has to be installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--calls", type=int, help=f"cancels of a round (default {CALLS})")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS})")
    options = parser.parse_args()
    options.calls = options.calls or (3 if options.quick else CALLS)
    options.rounds = options.rounds or (2 if options.quick else ROUNDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
