"""Planted bugs in a real cloud: a small run for each, which one of the invariants that tell of it has to turn red."""

import time

from .plan import Plan, Planned
from .planted import GRACE_S, PLANTED
from .run import Run

SEED = 31
PATIENCE_S = 30.0
RATE_MIN, LONG_SHARE = 0.0, 0.3


def trial_of(name, folder):
    """Return the run that has to find a bug."""
    bug = PLANTED[name]
    trial = bug.trial
    quiet = trial.jobs // 5
    step = (trial.jobs - quiet) // (len(trial.faults) + 1)
    planned = [
        Planned(quiet + step * number, place, 0.05, lasts_s, resets)
        for number, (place, lasts_s, resets) in enumerate(trial.faults)
    ]
    environment = {"CHAOS_PLANT": name}
    if trial.failpoints:
        environment |= {"APOTHIC_TEST_ONLY": "1", "APOTHIC_FAILPOINTS": trial.failpoints}
    return Run(
        Plan(SEED, trial.jobs, quiet, tuple(planned), GRACE_S),
        folder,
        title=name,
        rate_min=RATE_MIN,
        is_spread=trial.is_spread,
        long_share=LONG_SHARE if trial.is_spread else 0.0,
        environment=environment,
        patience_s=PATIENCE_S,
    )


async def try_all(folder, names=()):
    """Run every bug that has a trial; print a line for each and return how many were not found."""
    missed = 0
    for number, name in enumerate(name for name, bug in PLANTED.items() if bug.trial and (not names or name in names)):
        place = folder / str(number)
        place.mkdir()
        began = time.monotonic()
        found = await violated(name, place)
        is_found = bool(found & PLANTED[name].finds)
        missed += not is_found
        told = ", ".join(sorted(found)) or "nothing"
        print(
            f"{'found ' if is_found else 'MISSED'}  {name:34} {told:24} {time.monotonic() - began:5.0f} s", flush=True
        )
    return missed


async def violated(name, folder):
    """Return the invariants that a bug broke, or the name of an error."""
    try:
        report = await trial_of(name, folder).run()
    except Exception as error:
        return {repr(error)}
    return {violation.invariant for violation in report.violations}
