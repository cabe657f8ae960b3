"""How long a change of one module takes to its first result, beside a peer that restarts its worker (P17).

The app has 1 MB of files. Ours is `app.deploy()` and a call that waits for a new sandbox with the new code.

Usage: deploy.py [--quick] [--json FILE] [--calls N] [--rounds N]

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

WARM = 1
CONTENDERS = (
    Contender("ours", "Apothic, `app.deploy()` to the first result", "commit in PostgreSQL", "redeploy", "redeploy"),
    Contender("D", "Apothic, `app.deploy()` alone", "commit in PostgreSQL", "redeploy", "deploy"),
    Contender("E", "HTTP echo: asyncio, uvloop, httptools", "none", "httptools"),
    Contender("C", "Celery + Redis, restart of the worker to the first result", "none", "redeploy-celery", "redeploy"),
)
GOAL_US, STRETCH_US = 1_000_000.0, 300_000.0


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few deploys, no peer that has to be installed")
    options.number("calls", 10, 2, "deploys of a round")
    options.number("rounds", 5, 2, "rounds")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    compared = compare(
        CONTENDERS, options, folder, stack, lambda one, driver: driver.round(one.cell, options.calls, WARM)
    )
    sent = compared.started.drivers["redeploy"].ask({"extra": "sent"})
    ours = compared.found["ours"].p50
    return Report(
        title="A deploy",
        text=f"{options.rounds} interleaved rounds of {options.calls} deploys each.\n\n{compared.table()}\n\n"
        f"Each deploy sent {sent['uploaded']:,} bytes of an archive of {sent['archive']:,}.",
        goals=[
            at_most("P17", "a change of code to its first result", ours, GOAL_US, STRETCH_US),
            at_most("peer", "the same", ours, 1, beside=("C", compared.p50("C"))),
        ],
        figures={**compared.figures(options), "sent": sent},
        missing=compared.reasons,
    )


if __name__ == "__main__":
    sys.exit(main())
