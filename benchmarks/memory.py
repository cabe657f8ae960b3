"""What a cloud that rests takes of the memory, beside its peers, in one run and one table (P19).

Counted is PSS: what several processes share counts for each by its share. Everything has run one call before.

Usage: memory.py [--quick] [--json FILE] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from _contenders import Contender, Driver
from _measuring import Options, Report, begin, left_out, run, told_round
from _processes import below, children, private, pss, roles
from _verdict import Goal, at_most, megabytes

CONTENDERS = (
    Contender("ours", "Apothic, without its PostgreSQL", "", "cloud"),
    Contender("C", "Celery + Redis, two processes", "", "celery"),
    Contender("RT", "Ray, one node, two processors", "", "ray", "task"),
)
PARTS = {
    "server": "server",
    "worker": "node agent: the worker",
    "zygote": "zygote of the function, in its sandbox",
    "child": "child of the zygote, one runner",
    "own": "of it shared with nobody",
    "sandbox": "the sandbox around it",
    "postgres": "PostgreSQL",
}
APART = ("own", "postgres")
"""Not added to the rest."""

PAUSE_S = 2.0


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "one look, no peer that has to be installed")
    options.number("rounds", 5, 1, "looks")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    started = begin(CONTENDERS, options, folder, stack)
    drivers = {one.key: started.drivers[one.driver] for one in CONTENDERS if one.driver in started.drivers}
    reasons = left_out(CONTENDERS, started)
    for one in CONTENDERS:
        if one.key in drivers:
            drivers[one.key].round(one.cell, 1, 0)
    looks: defaultdict[str, list[int]] = defaultdict(list)
    for number in range(options.rounds):
        time.sleep(PAUSE_S)
        for key, driver in drivers.items():
            found = _parts(driver) if key == "ours" else {key: pss(below(driver.pid))}
            for name, size in found.items():
                looks[name].append(size)
        told_round(number, options)
    sizes = {name: statistics.median(found) for name, found in looks.items()}
    sizes["ours"] = sum(sizes[name] for name in PARTS if name not in APART)
    return Report(
        title="Memory at rest",
        text=f"{options.rounds} looks; PSS.\n\n{_table(sizes, reasons)}",
        goals=_goals(sizes),
        figures={"bytes": sizes},
        missing=reasons,
    )


def _parts(cloud: Driver) -> dict[str, int]:
    """Return the memory of the parts of the cloud that runs."""
    kinds = roles(cloud.ready["pid"])
    found = {name: pss(kinds.get(name, [])) for name in ("server", "worker", "postgres")}
    runners = kinds.get("runner", [])
    parents = {pid: children(pid) for pid in runners}
    leaves = [pid for pid in runners if not parents[pid]]
    zygotes = [pid for pid in runners if any(child in leaves for child in parents[pid])]
    found["child"] = max((pss([pid]) for pid in leaves), default=0)
    found["own"] = max((private([pid]) for pid in leaves), default=0)
    found["zygote"] = pss(zygotes)
    found["sandbox"] = pss(pid for pid in runners if pid not in leaves and pid not in zygotes)
    return found


def _goals(sizes: Mapping[str, float]) -> list[Goal]:
    mb = 1_000_000
    return [
        at_most("P19", "the server", sizes["server"], 80 * mb, 50 * mb, show=megabytes),
        at_most("P19", "the node agent", sizes["worker"], 40 * mb, 25 * mb, show=megabytes),
        at_most("P19", "a child of the zygote", sizes["child"], 5 * mb, 1.5 * mb, show=megabytes),
        *(
            at_most("peer", "everything", sizes["ours"], 1, beside=(key, sizes.get(key)), show=megabytes)
            for key in ("C", "RT")
        ),
    ]


def _table(sizes: Mapping[str, float], reasons: Mapping[str, str]) -> str:
    lines = ["| | what | PSS |", "|---|---|---|"]
    lines += [f"| | {label} | {megabytes(sizes[name])} |" for name, label in PARTS.items() if name in sizes]
    for one in CONTENDERS:
        size = megabytes(sizes[one.key]) if one.key in sizes else f"not measured: {reasons[one.key]}"
        lines.append(f"| {one.key} | {one.label} | {size} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
