"""Time as a collaborator: the system's, or one that tests advance by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now(self) -> datetime:
        """Return the current time in UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never step back; comparable within one process only."""
        ...
