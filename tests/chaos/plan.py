"""One 64-bit seed decides everything that the harness decides: which faults, in which order, after how many jobs."""

import random
from dataclasses import dataclass

SEED_MAX = 2**64 - 1

KILLS = ("server", "worker", "user", "database")


@dataclass(frozen=True)
class Planned:
    """One fault.

    Attributes:
        after_jobs: Not before so many calls were accepted.
        place: What it hits.
        wait_s: Waited after that, so that it falls anywhere in what is going on.
        lasts_s: How long it lasts; 0 for a kill.
    """

    after_jobs: int
    place: str
    wait_s: float
    lasts_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One run. `quiet_jobs` are accepted before the first fault, to see what the machine does undisturbed."""

    seed: int
    jobs: int
    quiet_jobs: int
    faults: tuple[Planned, ...]

    def random(self, what: str) -> random.Random:
        """Return the randomness of one part of the harness, the same for the same seed."""
        return random.Random(f"{self.seed}:{what}")


def make_plan(
    seed: int, *, jobs: int, faults: int, places: tuple[str, ...] = KILLS, lasts_s: tuple[float, float] = (0.0, 0.0)
) -> Plan:
    """Return the plan of a seed: every place equally often, in a random order, spread over the jobs."""
    if not 0 <= seed <= SEED_MAX:
        raise ValueError(f"a seed is a number from 0 to {SEED_MAX}")
    chance = random.Random(seed)
    order = [places[number % len(places)] for number in range(faults)]
    chance.shuffle(order)
    quiet = jobs // 5
    step = (jobs - quiet) * 0.9 / max(faults, 1)
    planned = tuple(
        Planned(quiet + round(step * number), place, chance.uniform(0.0, 0.4), chance.uniform(*lasts_s))
        for number, place in enumerate(order)
    )
    return Plan(seed, jobs, quiet, planned)
