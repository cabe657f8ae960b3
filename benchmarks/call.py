"""How long a warm call takes, beside its peers and yardsticks, in one run and one table.

Usage: call.py [--quick] [--profile] [--json FILE] [--calls N] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _contenders import CONTENDERS, QUICK, Started, start
from _machine import machine_line, moment
from _measuring import run
from _profile import profile
from _verdict import as_json, figures, goal_table, goals, invalid_reasons, table

CALLS, ROUNDS, WARM, BURST = 300, 7, 30, 2_000
QUICK_CALLS, QUICK_ROUNDS, QUICK_BURST = 20, 2, 128


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measure, _options())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    contenders = tuple(one for one in CONTENDERS if not options.quick or one.key in QUICK)
    started = start(contenders, folder, stack.callback)
    before = moment()
    times, counted = _rounds(started, options)
    line = machine_line(before, moment())
    found = {key: figures(rounds) for key, rounds in times.items()}
    reasons = {one.key: started.reasons.get(one.driver, "--quick") for one in CONTENDERS if one.key not in found}
    invalid = invalid_reasons(found)
    result: dict[str, Any] = {
        "machine": line,
        "calls": options.calls,
        "rounds": options.rounds,
        "figures_us": {key: asdict(value) for key, value in found.items()},
        "not_measured": reasons,
        "counted": counted,
        "goals": [as_json(goal) for goal in goals(found, counted)],
        "invalid": invalid,
    }
    print(f"\n## A warm call\n\n{line}\n\n{options.rounds} interleaved rounds of {options.calls} calls each.\n")
    print(table(found, reasons, CONTENDERS))
    print(f"\n{goal_table(goals(found, counted))}\n")
    print(_standing(reasons, invalid, counted))
    if options.profile:
        result["profile"] = profile(started.drivers["cloud"], options.calls, folder)
    return result


def _rounds(started: Started, options: argparse.Namespace) -> tuple[dict[str, list[list[int]]], dict[str, float]]:
    measured = [one for one in CONTENDERS if one.driver in started.drivers]
    times: dict[str, list[list[int]]] = {one.key: [] for one in measured}
    cloud = started.drivers["cloud"]
    commits = jobs = 0.0
    for number in range(options.rounds):
        for one in measured:
            before = cloud.ask({"extra": "counters"}) if one.key == "ours" else {}
            times[one.key].append(started.drivers[one.driver].round(one.cell, options.calls, WARM))
            if one.key == "ours":
                commits += cloud.ask({"extra": "counters"})["commits"] - before["commits"]
                jobs += options.calls + WARM
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    burst = cloud.ask({"extra": "burst", "calls": options.burst})
    return times, {
        "commits_per_job": commits / jobs,
        "commits_per_job_in_flight": burst["commits"] / options.burst,
        "jobs_per_s_64_callers": options.burst / burst["seconds"],
    }


def _standing(reasons: dict[str, str], invalid: list[str], counted: dict[str, float]) -> str:
    lines = [f"64 threads, one call at a time each: {counted['jobs_per_s_64_callers']:,.0f} jobs/s."]
    if invalid:
        lines.append(f"The run is **invalid**: {'; '.join(invalid)}.")
    if reasons:
        lines.append(f"The run is **incomplete**: {', '.join(sorted(reasons))} not measured.")
    if not invalid and not reasons:
        lines.append("The run is complete and valid.")
    return "\n\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a warm call takes, beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few calls, no peer that has to be installed")
    parser.add_argument("--profile", action="store_true", help="also print where the time of a call goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--calls", type=int, help=f"calls of a round (default {CALLS})")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS})")
    options = parser.parse_args()
    options.calls = options.calls or (QUICK_CALLS if options.quick else CALLS)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.burst = QUICK_BURST if options.quick else BURST
    return options


if __name__ == "__main__":
    sys.exit(main())
