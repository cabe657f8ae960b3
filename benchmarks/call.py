"""How long a warm call takes, beside its peers and yardsticks, in one run and one table.

Usage: call.py [--quick] [--profile] [--json FILE] [--calls N] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from _contenders import Contender, Driver
from _measuring import Comparison, Options, Report, compare, run
from _profile import profile
from _verdict import Goal, at_most, invalid_reasons, plain

WARM, CALLERS = 30, 64
CONTENDERS = (
    Contender("ours", "Apothic, warm no-op `remote()`", "commit in PostgreSQL before the reply", "cloud"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools", "none", "httptools"),
    Contender("U", "HTTP echo: uvicorn, Starlette", "none", "starlette", reference_us=98, e_us=26),
    Contender("F", "4 KiB append + fdatasync", "on disk", "disk"),
    Contender("T", "commit of one small row, asyncpg", "commit in PostgreSQL", "postgres", reference_us=470, f_us=150),
    Contender("C", "Celery + Redis, `acks_late`", "in Redis' memory", "celery", reference_us=1963),
    Contender("C*", "Celery + Redis, `acks_late`, AOF always", "on disk in Redis", "celery-aof", reference_us=2597),
    Contender("RT", "Ray, task", "memory only", "ray", "task", reference_us=1462),
    Contender("RA", "Ray, call of an actor", "memory only", "ray", "actor", reference_us=718),
)


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few calls, no peer that has to be installed")
    options.add_argument("--profile", action="store_true", help="also print where the time of a call goes")
    options.number("calls", 300, 20, "calls of a round")
    options.number("rounds", 7, 2, "rounds")
    options.number("burst", 2_000, 128, f"calls of the burst from {CALLERS} callers")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    counted: Counter[str] = Counter()

    def measured(one: Contender, driver: Driver) -> list[int]:
        if one.key != "ours":
            return driver.round(one.cell, options.calls, WARM)
        before = driver.ask({"extra": "counters"})
        times = driver.round(one.cell, options.calls, WARM)
        after = driver.ask({"extra": "counters"})
        counted.update(commits=int(after["commits"] - before["commits"]), jobs=options.calls + WARM)
        return times

    compared = compare(CONTENDERS, options, folder, stack, measured)
    cloud = compared.started.drivers["cloud"]
    burst = cloud.ask({"extra": "burst", "callers": CALLERS, "calls": options.burst})
    commits = {"single": counted["commits"] / counted["jobs"], "in_flight": burst["commits"] / options.burst}
    rate = options.burst / burst["seconds"]
    figures = {**compared.figures(options), "commits_per_job": commits, "jobs_per_s_in_flight": rate}
    if options.profile:
        figures["profile"] = profile(cloud, options.calls, folder)
    return Report(
        title="A warm call",
        text=f"{options.rounds} interleaved rounds of {options.calls} calls each.\n\n{compared.table()}\n\n"
        f"{CALLERS} threads, one call at a time each: {rate:,.0f} jobs/s.",
        goals=_goals(compared, commits),
        figures=figures,
        invalid=invalid_reasons({key: found.p50 for key, found in compared.found.items()}, CONTENDERS),
        missing=compared.reasons,
    )


def _goals(compared: Comparison, commits: Mapping[str, float]) -> list[Goal]:
    ours, fsync = compared.found["ours"], compared.found["F"]
    call, late = "a warm call, p50", "a warm call, p99"
    tail = ("4 p50 + 2 p99 of F", 4 * ours.p50 + 2 * fsync.p99)
    return [
        at_most("P1", call, ours.p50, 1, beside=("5 U + 3 T", _sum(compared, U=5, T=3))),
        at_most("P1", call, ours.p50, 0.6, beside=("C", compared.p50("C"))),
        at_most("P1", call, ours.p50, 1, beside=("RT", compared.p50("RT"))),
        at_most("P1", call, ours.p50, None, 1, beside=("2 U + 1.5 T", _sum(compared, U=2, T=1.5))),
        at_most("P1", call, ours.p50, None, 1, beside=("RA", compared.p50("RA"))),
        at_most("P2", late, ours.p99, 1, beside=tail),
        at_most("P2", late, ours.p99, None, 2.5, beside=("its p50", ours.p50)),
        at_most("P6", "commits a job, one at a time", round(commits["single"], 2), 2, 1, show=plain),
        at_most("P6", f"commits a job, {CALLERS} in flight", commits["in_flight"], 0.2, 0.05, show=plain),
    ]


def _sum(compared: Comparison, **weights: float) -> float | None:
    found = {key: compared.p50(key) for key in weights}
    return sum(weights[key] * (value or 0.0) for key, value in found.items()) if all(found.values()) else None


if __name__ == "__main__":
    sys.exit(main())
