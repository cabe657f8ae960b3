"""Hints: how the board wakes loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from apothic.wire.ids import JobId
from apothic_server.domain.decide.cycles import Knot
from apothic_server.services.dispatch.live import LiveJob

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Hints:
    """Wakes the loops that do what the board may not: wait. A lost hint costs a timer's length, nothing else.

    `orphaned` gets the jobs that nobody waits for any more, because the attempt that did has ended. `knot` is no hint:
    it tells what user code waits for that is no job.
    """

    feed: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: None
    changed: Callable[[str], None] = lambda _: None
    retries: Callable[[], None] = lambda: None
    limits: Callable[[], None] = lambda: None
    maps: Callable[[], None] = lambda: None
    builds: Callable[[], None] = lambda: None
    orphaned: Callable[[list[LiveJob]], None] = lambda _: None
    knot: Callable[[JobId], Knot | None] = lambda _: None
    _news: dict[JobId, None] = field(default_factory=dict[JobId, None])

    def committed(self, job_id: JobId) -> None:
        """Call `changed` for a job in the next turn of the event loop: once for all its records of one commit."""
        if not self._news:
            asyncio.get_running_loop().call_soon(self._tell_news)
        self._news[job_id] = None

    def _tell_news(self) -> None:
        news, self._news = self._news, {}
        for job_id in news:
            # One listener that fails must not keep the news of the others.
            try:
                self.changed(job_id)
            except Exception:
                log.exception("hints.listener_failed", stream=job_id)
