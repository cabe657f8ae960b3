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

from _contenders import Contender, Driver
from _measuring import Options, Report, begin, left_out, run, told_round
from _processes import pss
from _verdict import Goal, at_most, figures, micros, plain

WARM, WARM_CALLS = 3, 30
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
    options = Options(__doc__, "few watchers, no peer that has to be installed")
    options.number("watchers", 1_000, 50, f"watchers of one stream, more than {FEW}")
    options.number("rounds", 3, 1, "rounds")
    options.number("events", 30, 5, "events of a round")
    options.number("calls", 200, 20, "calls of a round")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    started = begin(CONTENDERS, options, folder, stack)
    drivers = {one.key: started.drivers[one.driver] for one in CONTENDERS if one.driver in started.drivers}
    reasons = left_out(CONTENDERS, started)
    drivers["ours"].ask({"extra": "stream"})
    rounds: dict[str, list[Fanout]] = {key: [] for key in drivers if key != "E"}
    calls: dict[str, list[list[int]]] = {"E": [], "alone": [], "watched": []}
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
        told_round(number, options)
    medians = {key: _median(found) for key, found in rounds.items()}
    p50s = {key: figures(times).p50 for key, times in calls.items()}
    return Report(
        title="Watchers",
        text=f"{options.rounds} interleaved rounds of {options.events} events to {options.watchers} watchers each.\n\n"
        f"{_table(medians, reasons, p50s['E'])}\n\n{_call_table(p50s, options.watchers)}",
        goals=_goals(medians["ours"], p50s),
        figures={
            "watchers": options.watchers,
            "events": options.events,
            "rounds": options.rounds,
            "fanout": {key: asdict(value) for key, value in medians.items()},
            "call_p50_us": p50s,
        },
        missing=reasons,
    )


def _fanout(driver: Driver, options: argparse.Namespace) -> Fanout:
    """Measure one round; its watchers stay."""
    empty = pss([driver.ready["pid"]])
    driver.ask({"extra": "watch", "watchers": FEW})
    few = _events(driver, options.events)
    opening = driver.ask({"extra": "watch", "watchers": options.watchers})["seconds"]
    full = pss([driver.ready["pid"]])
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
    return [
        at_most("P9", "an event to the last watcher", ours.last, 50_000, 15_000),
        at_most("P9", "each watcher's share, of that among 10", ours.growth, 1.5, show=plain),
        at_most("P9", "memory a watcher", ours.memory, 30 * 1024, 12 * 1024, show=_kib),
        at_most("P10", "a call while they wait", calls["watched"], 1.2, 1.05, beside=("alone", calls["alone"])),
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


if __name__ == "__main__":
    sys.exit(main())
