"""How long the record of a move may wait for others to share a commit with."""

from __future__ import annotations

PATIENCE_S, PATIENCE_MAX_S = 0.0004, 0.02
"""Seconds for each job of the function that waits for a slot, and the most that they add up to."""

TURN_S, TURN_MAX_S = 0.005, 0.5
"""The same for the record of a new call whose caller waits for its end, and which has to wait for its turn."""


def patience_s(waiting: int) -> float:
    """Return the seconds that a start or an end of a job may wait; 0 while none of its function waits for a slot.

    Slots are free before the record is written, so jobs that wait lose nothing; a call that had to wait for its turn
    waits but a little longer.

    Args:
        waiting: Jobs of the same function that wait for a slot.
    """
    return min(PATIENCE_MAX_S, PATIENCE_S * waiting)


def turn_s(waiting: int) -> float:
    """Return the seconds that the record of a new blocking call may wait for the call's end, to be written with it.

    When its turn comes within that time, the call is one row written once, and its caller gets one answer. Until then
    nobody was told of it: should the server die, the caller asks again.

    Args:
        waiting: Jobs of the same function that wait for a slot before it; 0 for one that starts at once.
    """
    return min(TURN_MAX_S, TURN_S * waiting)
