"""What a worker that cannot reach its server does by itself (G3.2): stop user code, or end. Pure arithmetic."""

from __future__ import annotations

import enum
import math

MARGIN_S = 10.0

LOOK_S = 1.0
"""The loop's timers stand still while the machine sleeps, leases do not: they are looked at this often."""

ALONE_S = 60.0
"""A worker beside its server that holds nothing ends when no server was there for this long."""

UNDELIVERED_S = 86_400.0
"""So long it keeps results that no server came to fetch."""


class Stage(enum.Enum):
    """What the age of the lease asks for."""

    LIVE = "live"
    TERM = "term"
    KILL = "kill"


def margin_s(grace_s: float) -> float:
    """Return how long before the end of the lease user code is told to stop."""
    return min(MARGIN_S, grace_s / 3)


def stage(age_s: float, grace_s: float) -> Stage:
    """Return the stage of a lease that was renewed `age_s` ago and lasts `grace_s`."""
    margin = margin_s(grace_s)
    if age_s >= grace_s - margin / 2:
        return Stage.KILL
    return Stage.TERM if age_s >= grace_s - margin else Stage.LIVE


def next_check_s(age_s: float, grace_s: float) -> float:
    """Return the seconds until the stage changes next; infinity after the last one."""
    margin = margin_s(grace_s)
    edges = (grace_s - margin, grace_s - margin / 2)
    return next((edge - age_s for edge in edges if edge > age_s), math.inf)


def is_abandoned(away_s: float, *, executes: bool, owes: bool, alone_s: float = ALONE_S) -> bool:
    """Return whether a worker beside its server ends by itself, because the server is not coming back.

    Args:
        away_s: Seconds since the last link.
        executes: It holds attempts that have not ended; they go on, however long the server is away.
        owes: It holds ends that the server has not settled.
        alone_s: `ALONE_S`, or what a test can wait for.
    """
    return not executes and away_s >= (UNDELIVERED_S if owes else alone_s)
