"""How long the record of a move may wait for others to share a commit with."""

from __future__ import annotations

PATIENCE_S, PATIENCE_MAX_S = 0.0002, 0.01
"""Seconds for each job of the function that waits for a slot, and the most that they add up to."""


def patience_s(waiting: int) -> float:
    """Return the seconds that a start or an end of a job may wait; 0 while none of its function waits for a slot.

    Slots are free before the record is written, so jobs that wait lose nothing; a call that had to wait for its turn
    waits but a little longer.

    Args:
        waiting: Jobs of the same function that wait for a slot.
    """
    return min(PATIENCE_MAX_S, PATIENCE_S * waiting)
