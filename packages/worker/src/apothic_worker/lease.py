"""When a worker that cannot reach its server stops user code by itself (G3.2). Pure arithmetic."""

from __future__ import annotations

import enum

MARGIN_S = 10.0


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
    """Return the seconds until the stage changes next; 0 when it has already."""
    margin = margin_s(grace_s)
    edges = (grace_s - margin, grace_s - margin / 2)
    return next((edge - age_s for edge in edges if edge > age_s), 0.0)
