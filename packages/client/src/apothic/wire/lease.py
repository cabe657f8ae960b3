"""How long an attempt outlives silence between worker and server: both sides count by these rules (G3.2)."""

from __future__ import annotations

HEARTBEAT_S = 10.0
"""Longest time between two heartbeats."""

HEARTBEATS = 3
"""A lease is at least so many heartbeats long, so that two may be lost (G3.1)."""


def heartbeat_of(cloud_s: float) -> float:
    """Return the seconds between heartbeats in a cloud with this `disconnect_grace_s`."""
    return min(HEARTBEAT_S, cloud_s / HEARTBEATS)


def grace_of(own_s: float, cloud_s: float, heartbeat_s: float) -> float:
    """Return the seconds of silence after which attempts of a function run elsewhere, and before which they stop here.

    Args:
        own_s: `disconnect_grace_s` of the function; 0 for the cloud's.
        cloud_s: That of the cloud.
        heartbeat_s: Seconds between heartbeats; `HEARTBEATS` of them are the least.
    """
    return max(own_s, HEARTBEATS * heartbeat_s) if own_s else cloud_s
