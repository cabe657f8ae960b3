"""Durable maps and calls from many callers, beside their peers, in one run and one table (P4, P5, P6, P7).

A map's items are all different; one in a hundred writes a line, one in a thousand fails, and each outcome is checked.
The time goes on until status and events of 100 items, taken at random, have been read.

Usage: map.py [--quick] [--json FILE] [--items N] [--rounds N] [--calls N] [--share N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from _contenders import Contender, Driver
from _measuring import Options, Report, begin, left_out, run, told_round
from _verdict import Goal, at_least, at_most, figures, invalid_reasons, micros, per_second, plain

CALLERS = (16, 64)
ECHOES, WARM, WARM_ITEMS = 300, 30, 1_500
CONTENDERS = (
    Contender("ours", "Apothic, `map`", "commit in PostgreSQL before an outcome is told", "map"),
    Contender("slow", "the same, each commit 5 ms slower", "the same", "map-slow"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools, one at a time", "none", "httptools"),
    Contender("F", "4 KiB append + fdatasync, one at a time", "on disk", "disk"),
    Contender("P", "`ProcessPoolExecutor.submit`", "none", "pool", reference_us=80),
    Contender("C", "Celery + Redis, `acks_late`", "in Redis' memory", "celery", reference_us=1_590),
    Contender("C*", "Celery + Redis, `acks_late`, AOF always", "on disk in Redis", "celery-aof", reference_us=2_500),
    Contender("RT", "Ray, tasks", "memory only", "ray", reference_us=476),
    Contender("Q", "taskiq + Redis stream", "in Redis' memory", "taskiq"),
    Contender("DB", "DBOS, queue of workflows", "commit in PostgreSQL", "dbos"),
)
YARDSTICKS = ("E", "F")
SLOWER = 4
"""DBOS maps so many times fewer items than the other peers."""

IN_FULL = ("ours", "slow", "P")
"""Who maps all items in each round; the others a share of them, because the rate is what is compared."""


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few items, no peer that has to be installed")
    options.number("items", 10_000, 1_000, "items of a map")
    options.number("share", 5, 1, "a peer's map has so many times fewer items")
    options.number("rounds", 3, 1, "rounds")
    options.number("calls", 3_000, 200, "calls of all callers in a round")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    started = begin(CONTENDERS, options, folder, stack)
    drivers = {one.key: started.drivers[one.driver] for one in CONTENDERS if one.driver in started.drivers}
    reasons = left_out(CONTENDERS, started)
    rates: defaultdict[str, list[float]] = defaultdict(list)
    times: defaultdict[str, list[list[int]]] = defaultdict(list)
    commits = 0.0
    for driver in (drivers[key] for key in drivers if key not in YARDSTICKS and not options.quick):
        driver.ask({"extra": "map", "items": WARM_ITEMS // (1 if driver.name.startswith("map") else 10)})
    for number in range(options.rounds):
        for key, driver in drivers.items():
            if key in YARDSTICKS:
                times[key].append(driver.round("call", ECHOES, WARM))
                continue
            count = _count(key, options)
            told = driver.ask({"extra": "map", "items": count})
            rates[key].append(count / told["seconds"])
            if key == "ours":
                commits += told["commits"] / count / options.rounds
                rates["items"].append(count / told["items_s"])
                _calls(driver, options, rates)
        told_round(number, options)
    middle = {key: statistics.median(found) for key, found in rates.items()}
    found = {key: figures(rounds).p50 for key, rounds in times.items()}
    found |= {one.key: 1e6 / middle[one.key] for one in CONTENDERS if one.key in middle}
    return Report(
        title="Maps",
        text=_text(options, rates, found, reasons),
        goals=_goals(middle, commits),
        figures={"items": options.items, "rates_per_s": rates, "yardsticks_us": found, "commits_per_item": commits},
        invalid=invalid_reasons(found, CONTENDERS),
        missing=reasons,
    )


def _calls(driver: Driver, options: argparse.Namespace, rates: Mapping[str, list[float]]) -> None:
    for callers in CALLERS:
        told = driver.ask({"extra": "burst", "callers": callers, "calls": options.calls})
        rates[f"{callers} callers"].append(options.calls / told["seconds"])


def _count(key: str, options: argparse.Namespace) -> int:
    return options.items if key in IN_FULL else options.items // options.share // (SLOWER if key == "DB" else 1)


def _goals(rates: Mapping[str, float], commits: float) -> list[Goal]:
    ours, celery = rates["ours"], ("C", rates.get("C"))
    return [
        at_least("P4", "items of a map", ours, 10, 40, beside=celery),
        at_least("P4", "items of a map", ours, 15, beside=("C*", rates.get("C*"))),
        at_least("P4", "items of a map", ours, 3, beside=("RT", rates.get("RT"))),
        *(
            at_least("P5", f"calls of {callers} callers", rates[f"{callers} callers"], 4, 10, beside=celery)
            for callers in CALLERS
        ),
        at_most("P6", "commits an item of a map", commits, 0.2, 0.05, show=plain),
        at_least("P7", "items, each commit 5 ms slower", rates["slow"], 0.6, 0.8, beside=("ours", ours)),
        at_least("peer", "items of a map", ours, 1, beside=("Q", rates.get("Q"))),
        at_least("peer", "items of a map", ours, 1, beside=("DB", rates.get("DB"))),
    ]


def _text(
    options: argparse.Namespace,
    rates: Mapping[str, list[float]],
    found: Mapping[str, float],
    reasons: Mapping[str, str],
) -> str:
    lines = [
        "| | what | items a round | items a second | rounds | an item | durability |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in CONTENDERS:
        head = f"| {one.key} | {one.label} |"
        if one.key in YARDSTICKS:
            lines.append(f"{head} | | | {micros(found[one.key])} | {one.durability} |")
        elif one.key in reasons:
            lines.append(f"{head} not measured: {reasons[one.key]} | | | | |")
        else:
            spread = f"{per_second(min(rates[one.key]))} to {per_second(max(rates[one.key]))}"
            rate = per_second(statistics.median(rates[one.key]))
            count = f"{_count(one.key, options):,}"
            lines.append(f"{head} {count} | {rate} | {spread} | {micros(found[one.key])} | {one.durability} |")
    bare = per_second(statistics.median(rates["items"]))
    many = ", ".join(
        f"{number} callers {per_second(statistics.median(rates[f'{number} callers']))}" for number in CALLERS
    )
    return (
        f"{options.rounds} interleaved rounds; all contenders have two processes for the items.\n\n"
        + "\n".join(lines)
        + f"\n\nOurs without reading status and events of 100 items: {bare}. Single calls of one program with many "
        f"threads, one call at a time each: {many}; they are compared with Celery's batches, its fastest way."
    )


if __name__ == "__main__":
    sys.exit(main())
