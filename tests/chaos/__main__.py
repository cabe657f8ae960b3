"""`python -m tests.chaos a|b|c [--seed N]`: one shard. `python -m tests.chaos sim SEED`: one seed of the simulation."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from .plan import SEED_MAX, make_plan
from .run import Run


def main():
    """Run what the command line says; exit 0 when it was good, 1 on a violation, 2 when it proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("shard", choices=["a"])
    parser.add_argument("--seed", type=int, default=None, help="0 to 2**64 - 1; a fresh one without it")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--rate-min", type=float, default=50.0, help="calls a second that a valid run accepts")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(SEED_MAX)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="apothic-chaos-"))
    plan = make_plan(seed, jobs=options.jobs, faults=options.faults)
    run = Run(plan, folder, title="kills of server, worker, user code and database", rate_min=options.rate_min)
    report = asyncio.run(run.run())
    print(report)
    if report.exit_code or options.keep:
        print(f"history, fault log and logs: {folder}")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
