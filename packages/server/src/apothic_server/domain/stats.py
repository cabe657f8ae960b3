"""How the calls of an app went, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds, by how large a share of jobs stayed below them."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """The jobs of one function.

    Attributes:
        statuses: How many have each status that occurs.
        queue_s: From the call to the start, of jobs whose first attempt started; None without any.
        run_s: How long the last attempt ran, of jobs that succeeded, failed or ran out of time; None without any.
    """

    function_name: str
    statuses: Mapping[str, int]
    queue_s: Spread | None
    run_s: Spread | None


@dataclass(frozen=True, slots=True)
class AppStats:
    """The jobs of an app that were made in a span of time.

    Attributes:
        since: When the oldest that counts can have been made; None for all that are kept.
        is_whole: Whether all since then count; False when there were more than are looked at.
    """

    app_name: str
    since: datetime | None
    until: datetime
    is_whole: bool
    functions: tuple[FunctionStats, ...]
