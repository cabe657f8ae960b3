"""`python -m tests.chaos a|b|c [--seed N]`: one shard, a for kills, b for broken networks, c for power cuts."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .plan import KILLS, NETWORK, SEED_MAX, make_plan
from .powercut import PowerCuts
from .run import Run


@dataclass(frozen=True)
class Shard:
    """What one shard does; `is_spread` when workers of other machines do its work."""

    title: str
    jobs: int
    faults: int
    places: tuple[str, ...]
    is_spread: bool = False


FROZEN = ("freeze-worker", "freeze-server", "worker", "server", "drain", *NETWORK)
SHARDS = {
    "a": Shard("kills of server, worker, user code and database", 10_000, 200, KILLS),
    "b": Shard("cut off, frozen, drained and killed", 4_000, 65, FROZEN, is_spread=True),
}
CUTS, CUT_JOBS = 100, 1_000


def main():
    """Run what the command line says; exit 0 when it was good, 1 on a violation, 2 when it proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("shard", choices=[*sorted(SHARDS), "c"])
    parser.add_argument("--seed", type=int, default=None, help="0 to 2**64 - 1; a fresh one without it")
    parser.add_argument("--jobs", type=int, default=0, help="instead of the shard's own number")
    parser.add_argument("--faults", type=int, default=0, help="instead of the shard's own number")
    parser.add_argument("--rate-min", type=float, default=50.0, help="calls a second that a valid run accepts")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(SEED_MAX)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="apothic-chaos-"))
    report = asyncio.run(_make(options, seed, folder).run())
    print(report)
    if report.exit_code or options.keep:
        print(f"history, fault log and logs: {folder}")
    return report.exit_code


def _make(options, seed, folder):
    if options.shard == "c":
        cuts, jobs = options.faults or CUTS, options.jobs or CUT_JOBS
        return PowerCuts(seed, folder, cuts=cuts, jobs=jobs, rate_min=options.rate_min)
    shard = SHARDS[options.shard]
    jobs, faults = options.jobs or shard.jobs, options.faults or shard.faults
    plan = make_plan(seed, jobs=jobs, faults=faults, places=shard.places)
    return Run(plan, folder, title=shard.title, rate_min=options.rate_min, is_spread=shard.is_spread)


if __name__ == "__main__":
    sys.exit(main())
