"""How long a cancelled function goes on, beside peers that kill it, in one run and one table.

Timed from the caller's request to the end of a connection that the function holds, so to the death of its process.

Usage: cancel.py [--quick] [--json FILE] [--calls N] [--rounds N]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from _contenders import Contender
from _measuring import Options, Report, compare, run
from _verdict import at_most

WARM = 2
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
    options = Options(__doc__, "few cancels, no peer that has to be installed")
    options.number("calls", 20, 3, "cancels of a round")
    options.number("rounds", 5, 2, "rounds")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    compared = compare(
        CONTENDERS, options, folder, stack, lambda one, driver: driver.round(one.cell, options.calls, WARM)
    )
    ours = compared.found["ours"]
    goals = [at_most("G4.2", "a cancel, p99", ours.p99, PUSH_BOUND_US)]
    goals += [at_most("peer", "a cancel, p50", ours.p50, 1, beside=(key, compared.p50(key))) for key in ("C", "RT")]
    return Report(
        title="A cancel",
        text=f"{options.rounds} interleaved rounds of {options.calls} cancels each.\n\n{compared.table()}",
        goals=goals,
        figures=compared.figures(options),
        missing=compared.reasons,
    )


if __name__ == "__main__":
    sys.exit(main())
