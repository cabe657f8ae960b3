"""`python -m tests.chaos a|b|c|maps|s [--seed N]`: one shard.

a kills, b breaks networks and freezes, c cuts the power, maps does most of that to maps, s simulates many seeds;
`planted` tries the planted bugs.
"""

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from .load import WITH_LONG
from .maps.run import make_maps_run
from .plan import FAILPOINTS, GRACE_S, KILLS, NETWORK, SEED_MAX, make_plan
from .planted import PLANTED
from .powercut import PowerCuts
from .report import OPERATIONS_PER_S_MIN
from .run import Run
from .seeds import Seeds
from .trials import try_all


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
    "a": Shard("kills of server, worker, user code and database", 10_000, 230, (*KILLS * 25, *FAILPOINTS)),
    "b": Shard("cut off, frozen, drained and killed", 4_000, 65, FROZEN, is_spread=True),
}
SEEDS, SEEDS_BUDGET_S = 1_000, 900.0
CUTS, CUTS_BUDGET_S, CUT_JOBS = 100, 1_800.0, 1_000


def main():
    """Run what the command line says; exit 0 when it was good, 1 on a violation, 2 when it proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("shard", choices=[*sorted(SHARDS), "c", "maps", "s", "planted"])
    parser.add_argument("--plant", choices=sorted(PLANTED), help="put this bug in; `planted` tries it alone")
    parser.add_argument("--seed", type=int, default=None, help="0 to 2**64 - 1; a fresh one without it")
    parser.add_argument("--jobs", type=int, default=0, help="instead of the shard's own number")
    parser.add_argument("--faults", type=int, default=0, help="instead of the shard's own number")
    parser.add_argument("--rate-min", type=float, default=0.0, help="calls or items a second that a valid run accepts")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(SEED_MAX)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="apothic-chaos-"))
    if options.shard == "planted":
        return 1 if asyncio.run(try_all(folder, seed, [options.plant] if options.plant else [])) else 0
    report = asyncio.run(_make(options, seed, folder).run())
    print(report)
    if report.exit_code or options.keep:
        print(f"history, fault log and logs: {folder}")
    return report.exit_code


def _make(options, seed, folder):
    if options.shard == "s":
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        return Seeds(seed, folder, count=options.jobs or SEEDS, budget_s=SEEDS_BUDGET_S)
    if options.shard == "c":
        cuts, jobs = options.faults or CUTS, options.jobs or CUT_JOBS
        return PowerCuts(seed, folder, cuts=cuts, jobs=jobs, budget_s=CUTS_BUDGET_S)
    if options.shard == "maps":
        sizes = {"faults": options.faults, "items": options.jobs, "rate_min": options.rate_min}
        return make_maps_run(seed, folder, plant=options.plant, **{name: size for name, size in sizes.items() if size})
    shard = SHARDS[options.shard]
    jobs, faults = options.jobs or shard.jobs, options.faults or shard.faults
    plan = make_plan(seed, jobs=jobs, faults=faults, places=shard.places)
    environment = {"CHAOS_PLANT": options.plant} if options.plant else {}
    work = {"kinds": WITH_LONG, "long_s": (0.0, 3 * GRACE_S)} if shard.is_spread else {}
    return Run(
        plan,
        folder,
        title=shard.title,
        rate_min=options.rate_min or OPERATIONS_PER_S_MIN,
        is_spread=shard.is_spread,
        environment=environment,
        **work,
    )


if __name__ == "__main__":
    sys.exit(main())
