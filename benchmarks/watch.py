"""One event to many watchers, and what watchers that wait cost a call, in one run and one table.

Timed from what causes the event to its arrival at the first and at the last watcher, all of them sockets of one reading
thread on the same machine.

Usage: watch.py [--quick] [--json FILE] [--watchers N] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _contenders import Broken, Contender, Driver, start
from _machine import machine_line, moment
from _measuring import run
from _verdict import Goal, as_json, figures, goal_table, micros

WATCHERS, ROUNDS, EVENTS, WARM = 1_000, 3, 30, 3
CALLS, WARM_CALLS = 200, 30
FEW = 10
SETTLE_S = 2.0
"""For a server to notice that its watchers have left."""

CONTENDERS = (
    Contender("ours", "Apothic, an item of a generator", "commit in PostgreSQL first", "cloud"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools", "none", "httptools"),
    Contender("R", "broadcast: asyncio, uvloop, httptools", "none", "broadcast"),
    Contender("W", "broadcast: uvicorn, Starlette", "none", "broadcast-starlette"),
)


@dataclass(frozen=True, slots=True)
class Fanout:
    """One event to many: medians over the rounds, in microseconds, and bytes.

    Attributes:
        first: From the cause to the first watcher.
        last: From the cause to the last watcher.
        each: From the first to the last, for each watcher after the first.
        growth: `each` as a multiple of the same with `FEW` watchers.
        memory: Bytes of the server for each watcher, the most of all rounds.
        opened: Watchers opened in a second.
    """

    first: float
    last: float
    each: float
    growth: float
    memory: float
    opened: float


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measure, _options())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    started = start(CONTENDERS[:3] if options.quick else CONTENDERS, folder, stack.callback)
    if "broadcast" in started.reasons:
        raise Broken(started.reasons["broadcast"])
    drivers = {one.key: started.drivers[one.driver] for one in CONTENDERS if one.driver in started.drivers}
    reasons = {one.key: started.reasons.get(one.driver, "--quick") for one in CONTENDERS if one.key not in drivers}
    drivers["ours"].ask({"extra": "stream"})
    rounds: dict[str, list[Fanout]] = {key: [] for key in drivers if key != "E"}
    calls: dict[str, list[list[int]]] = {"E": [], "alone": [], "watched": []}
    before = moment()
    for number in range(options.rounds):
        for key, found in rounds.items():
            found.append(_fanout(drivers[key], options))
            if key == "ours":
                calls["watched"].append(drivers[key].round("call", options.calls, WARM_CALLS))
            drivers[key].ask({"extra": "unwatch"})
            time.sleep(SETTLE_S)
            if key == "ours":
                calls["alone"].append(drivers[key].round("call", options.calls, WARM_CALLS))
        calls["E"].append(drivers["E"].round("call", options.calls, WARM_CALLS))
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    line = machine_line(before, moment())
    medians = {key: _median(found) for key, found in rounds.items()}
    p50s = {key: figures(times).p50 for key, times in calls.items()}
    goals = _goals(medians["ours"], p50s)
    print(f"\n## Watchers\n\n{line}\n")
    print(f"{options.rounds} interleaved rounds of {options.events} events to {options.watchers} watchers each.\n")
    print(_table(medians, reasons, p50s["E"]))
    print(f"\n{_call_table(p50s, options.watchers)}\n\n{goal_table(goals)}")
    return {
        "machine": line,
        "watchers": options.watchers,
        "events": options.events,
        "rounds": options.rounds,
        "fanout": {key: asdict(value) for key, value in medians.items()},
        "call_p50_us": p50s,
        "not_measured": reasons,
        "goals": [as_json(goal) for goal in goals],
    }


def _fanout(driver: Driver, options: argparse.Namespace) -> Fanout:
    """Measure one round; its watchers stay."""
    empty = driver.ask({"extra": "memory"})["bytes"]
    driver.ask({"extra": "watch", "watchers": FEW})
    few = _events(driver, options.events)
    opening = driver.ask({"extra": "watch", "watchers": options.watchers})["seconds"]
    full = driver.ask({"extra": "memory"})["bytes"]
    many = _events(driver, options.events)
    first, last = (statistics.median(times) / 1000 for times in many)
    each = _each(many, options.watchers)
    return Fanout(
        first=first,
        last=last,
        each=each,
        growth=each / _each(few, FEW),
        memory=(full - empty) / options.watchers,
        opened=(options.watchers - FEW) / opening,
    )


def _events(driver: Driver, count: int) -> tuple[list[int], list[int]]:
    driver.ask({"extra": "events", "events": WARM})
    answer = driver.ask({"extra": "events", "events": count})
    return answer["first_ns"], answer["last_ns"]


def _each(times: tuple[list[int], list[int]], watchers: int) -> float:
    """Return the microseconds that each watcher after the first adds."""
    return statistics.median(last - first for first, last in zip(*times, strict=True)) / 1000 / (watchers - 1)


def _median(rounds: list[Fanout]) -> Fanout:
    def middle(name: str) -> float:
        return statistics.median(getattr(found, name) for found in rounds)

    return Fanout(
        first=middle("first"),
        last=middle("last"),
        each=middle("each"),
        growth=middle("growth"),
        memory=max(found.memory for found in rounds),
        opened=middle("opened"),
    )


def _goals(ours: Fanout, calls: dict[str, float]) -> list[Goal]:
    slowdown = calls["watched"] / calls["alone"]
    return [
        *_bounds("P9", [("50 ms to the last watcher", 50_000), ("15 ms to the last watcher", 15_000)], ours.last),
        Goal("P9", "1.5 of each watcher's share among 10", f"{ours.growth:.2f}", ours.growth <= 1.5),
        Goal("P9", "30 KiB a watcher", _kib(ours.memory), ours.memory <= 30 * 1024),
        Goal("P9 stretch", "12 KiB a watcher", _kib(ours.memory), ours.memory <= 12 * 1024),
        Goal("P10", "1.2 of a call's p50 without watchers", f"{slowdown:.2f}", slowdown <= 1.2),
        Goal("P10 stretch", "1.05 of a call's p50 without watchers", f"{slowdown:.2f}", slowdown <= 1.05),
    ]


def _bounds(name: str, bounds: list[tuple[str, float]], measured: float) -> list[Goal]:
    names = (name, f"{name} stretch")
    return [
        Goal(one, text, micros(measured), measured <= bound) for one, (text, bound) in zip(names, bounds, strict=True)
    ]


def _table(found: dict[str, Fanout], reasons: dict[str, str], echo: float) -> str:
    lines = [
        "| | what | to the first | to the last | each further | times E | against 10 | memory each | opened per s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in CONTENDERS:
        if one.key == "E":
            continue
        start_of_line = f"| {one.key} | {one.label} |"
        if one.key not in found:
            lines.append(f"{start_of_line} not measured: {reasons[one.key]} | | | | | | |")
            continue
        row = found[one.key]
        lines.append(
            f"{start_of_line} {micros(row.first)} | {micros(row.last)} | {row.each:.1f} µs | {row.each / echo:.2f} | "
            f"{row.growth:.2f} | {_kib(row.memory)} | {row.opened:,.0f} |"
        )
    return "\n".join(lines)


def _call_table(p50s: dict[str, float], watchers: int) -> str:
    rows = (("nobody watches", "alone"), (f"{watchers} watchers wait", "watched"), ("E, the HTTP echo", "E"))
    lines = [f"| {label} | {micros(p50s[key])} |" for label, key in rows]
    return "\n".join(["| one warm call at a time | p50 |", "|---|---|", *lines])


def _kib(size: float) -> str:
    return f"{size / 1024:.1f} KiB"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One event to many watchers, and what they cost a call.")
    parser.add_argument("--quick", action="store_true", help="a smoke run: few watchers, no peer to be installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--watchers", type=int, help=f"watchers of one stream (default {WATCHERS:,})")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS})")
    options = parser.parse_args()
    options.watchers = options.watchers or (50 if options.quick else WATCHERS)
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.events = 5 if options.quick else EVENTS
    options.calls = 20 if options.quick else CALLS
    if options.watchers <= FEW:
        parser.error(f"--watchers is more than {FEW}")
    return options


if __name__ == "__main__":
    sys.exit(main())
