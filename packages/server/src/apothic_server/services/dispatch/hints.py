"""Hints: how the board wakes loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apothic_server.services.dispatch.live import LiveJob


@dataclass(slots=True)
class Hints:
    """Wakes the loops that do what the board may not: wait. A lost hint costs a timer's length, nothing else.

    `orphaned` gets the jobs that nobody waits for any more, because the attempt that did has ended.
    """

    feed: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: None
    changed: Callable[[str], None] = lambda _: None
    retries: Callable[[], None] = lambda: None
    limits: Callable[[], None] = lambda: None
    maps: Callable[[], None] = lambda: None
    builds: Callable[[], None] = lambda: None
    orphaned: Callable[[list[LiveJob]], None] = lambda _: None
