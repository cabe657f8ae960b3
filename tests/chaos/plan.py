"""One 64-bit seed decides everything that the harness decides: which faults, in which order, after how many jobs."""

import random
from dataclasses import dataclass

SEED_MAX = 2**64 - 1

KILLS = ("server", "worker", "user", "database")
PARTITIONS = ("cut", "hang", "deaf", "mute")
FAILPOINTS = {
    "term.before": 1,
    "term.after": 1,
    "hello.before": 1,
    "hello.after": 1,
    "sweep.before": 3,
    "sweep.after": 3,
    "heartbeat.before": 1,
    "heartbeat.after": 1,
    "writer.taken": 60,
    "writer.commit": 60,
    "writer.committed": 60,
    "call.accepted": 20,
    "cancel.committed": 2,
    "value.before": 2,
    "value.after": 2,
}
"""Points at which a server that has just been started dies, the n-th time it comes there: from 1 to this."""

NETWORK = (*PARTITIONS, "delay", "lose", "clients-cut", "clients-lose")

GRACE_S = 9.0
"""`disconnect_grace_s` of runs with workers of other machines: after 6 s cut off they stop user code, after 7.5 s they
kill it."""


def lasting(place: str, grace_s: float) -> tuple[tuple[float, float], ...]:
    """Return the bands, each from and to in seconds, of how long a fault lasts; none for what takes but a moment.

    Cuts come in three: so short that they cost nothing, so long that a worker may stop its work by itself, and so long
    that the server gives the work away.
    """
    if place in (*PARTITIONS, "freeze-worker"):
        return (0.02 * grace_s, short_s(grace_s)), (0.2 * grace_s, 0.95 * grace_s), (grace_s + 3.5, grace_s + 6.0)
    return LASTS.get(place, ())


def short_s(grace_s: float) -> float:
    """Return how long a cut may last that costs nothing: the lease is at most a third old when it begins."""
    return 0.13 * grace_s


LASTS = {
    "freeze-server": ((1.0, 8.0),),
    "delay": ((2.0, 6.0),),
    "lose": ((1.0, 4.0),),
    "clients-cut": ((0.3, 2.0),),
    "clients-lose": ((1.0, 4.0),),
}


@dataclass(frozen=True)
class Planned:
    """One fault.

    Attributes:
        after_jobs: Not before so many calls were accepted.
        place: What it hits.
        wait_s: Waited after that, so that it falls anywhere in what is going on.
        lasts_s: How long it lasts; 0 for a kill.
        resets: Connections that it met are reset in the end, instead of going on.
        turn: Of a failpoint: it acts so many times it is met.
    """

    after_jobs: int
    place: str
    wait_s: float
    lasts_s: float = 0.0
    resets: bool = False
    turn: int = 1


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        quiet_jobs: Accepted before the first fault, to see what the machine does undisturbed.
        grace_s: `disconnect_grace_s` of the cloud where workers of other machines do the work.
    """

    seed: int
    jobs: int
    quiet_jobs: int
    faults: tuple[Planned, ...]
    grace_s: float = GRACE_S

    def random(self, what: str) -> random.Random:
        """Return the randomness of one part of the harness, the same for the same seed."""
        return random.Random(f"{self.seed}:{what}")


def make_plan(
    seed: int, *, jobs: int, faults: int, places: tuple[str, ...] = KILLS, quiet_jobs: int | None = None
) -> Plan:
    """Return the plan of a seed: every place equally often, in a random order, spread over the jobs.

    Args:
        quiet_jobs: Accepted before the first fault; None for a fifth.
    """
    if not 0 <= seed <= SEED_MAX:
        raise ValueError(f"a seed is a number from 0 to {SEED_MAX}")
    chance = random.Random(seed)
    order = [(places[number % len(places)], number // len(places) + number) for number in range(faults)]
    chance.shuffle(order)
    quiet = jobs // 5 if quiet_jobs is None else quiet_jobs
    step = (jobs - quiet) * 0.9 / max(faults, 1)
    planned = tuple(
        Planned(
            after_jobs=quiet + round(step * number),
            place=place,
            wait_s=chance.uniform(0.0, 0.4),
            lasts_s=_lasts_s(place, turn, chance),
            resets=chance.random() < 0.5,
            turn=chance.randint(1, FAILPOINTS.get(place, 1)),
        )
        for number, (place, turn) in enumerate(order)
    )
    return Plan(seed, jobs, quiet, planned)


def _lasts_s(place, turn, chance):
    bands = lasting(place, GRACE_S)
    return chance.uniform(*bands[turn % len(bands)]) if bands else 0.0
