"""Planted bugs in a real cloud: a small run for each, which one of the invariants that tell of it has to turn red.

The same run without the bug has to be good, or it would prove nothing.
"""

import time

from .load import LONG
from .maps.run import small_maps_run
from .plan import Plan, Planned
from .planted import PLANTED
from .run import Run, commit

SEED = 31
PATIENCE_S = 30.0
RATE_MIN = 0.0
LONG_AT_ONCE = 4
MAPS_PATIENCE_S = 100.0


def trial_of(trial, folder, *, plant="", seed=SEED):
    """Return the run of a trial with a bug in it, or with none."""
    quiet = trial.jobs // 5
    step = (trial.jobs - quiet) // (len(trial.faults) + 1)
    planned = [
        Planned(quiet + step * number, place, 0.05, lasts_s, resets)
        for number, (place, lasts_s, resets) in enumerate(trial.faults)
    ]
    environment = {"CHAOS_PLANT": plant} if plant else {}
    if trial.failpoints:
        environment |= {"APOTHIC_TEST_ONLY": "1", "APOTHIC_FAILPOINTS": trial.failpoints}
    longest_s = trial.long_s[1] if trial.long_s else 0.0
    if trial.items:
        environment = {"environment": environment, "rate_min": RATE_MIN, "title": plant or "no bug"}
        plan = Plan(seed, trial.jobs, quiet, tuple(planned), trial.grace_s)
        return small_maps_run(plan, folder, items=trial.items, patience_s=MAPS_PATIENCE_S, **environment)
    work = {"kinds": LONG, "long_s": trial.long_s, "at_once": LONG_AT_ONCE} if trial.long_s else {}
    return Run(
        Plan(seed, trial.jobs, quiet, tuple(planned), trial.grace_s),
        folder,
        title=plant or "no bug",
        rate=trial.rate,
        rate_min=RATE_MIN,
        is_spread=trial.is_spread,
        environment=environment,
        patience_s=PATIENCE_S + 3 * longest_s,
        **work,
    )


async def try_all(folder, seed, names=()):
    """Run every bug that has a trial, and its trial without it; print a table and return how many were not found."""
    missed, good = 0, {}
    print(f"commit {commit()}\n\n| Bug | Found by | Seconds | The same run without it |\n|---|---|---|---|", flush=True)
    for name, bug in PLANTED.items():
        if bug.trial is None or (names and name not in names):
            continue
        began = time.monotonic()
        found = await violated(name, _made(folder / name.replace(" ", "-")), seed=seed)
        took_s = time.monotonic() - began
        if bug.trial not in good:
            good[bug.trial] = await verdict(bug.trial, _made(folder / f"{name.replace(' ', '-')}-not"), seed=seed)
        is_found = bool(found & bug.finds) and good[bug.trial] == "GOOD"
        missed += not is_found
        told = ", ".join(sorted(found)) or "nothing"
        print(f"| {name} | {told if is_found else f'MISSED ({told})'} | {took_s:.0f} | {good[bug.trial]} |", flush=True)
    return missed


async def violated(name, folder, *, seed=SEED):
    """Return the invariants that a bug broke, or the name of an error."""
    try:
        report = await trial_of(PLANTED[name].trial, folder, plant=name, seed=seed).run()
    except Exception as error:
        return {repr(error)}
    return {violation.invariant for violation in report.violations}


async def verdict(trial, folder, *, seed=SEED):
    """Return what a trial without a bug says of itself: `GOOD`, or what is wrong."""
    try:
        report = await trial_of(trial, folder, seed=seed).run()
    except Exception as error:
        return repr(error)
    (folder / "report").write_text(str(report))
    return "GOOD" if report.exit_code == 0 else "; ".join(map(str, [*report.violations, *report.invalid][:3]))


def _made(folder):
    folder.mkdir()
    return folder
