"""Whose output is it? Gives what a runner writes to the call that runs, and sends it in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from apothic_worker.attempt import Attempt, Reports

LOG_DELAY_S = 0.05
EARLY_BYTES_MAX = 64 * 1024
"""Output kept from before the first call."""


class Transcript:
    """Output of one runner.

    Args:
        calls: The calls that run now, kept up to date by the runner.
        reports: Gets the lines.
        is_shared: Calls that run at once are one batch. What is written is given to the first of them that nobody
            has stopped; a remark in the others says where it is.
    """

    def __init__(self, calls: Mapping[str, Attempt], reports: Reports, *, is_shared: bool = False) -> None:
        self._calls = calls
        self._is_shared = is_shared
        self._speaker: Attempt | None = None
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._early: list[tuple[str, bytes]] = []
        self._early_bytes = 0
        self._mixed_bytes = 0

    def wrote(self, stream: str, data: bytes) -> None:
        """Give bytes to the one call that runs; before a call they wait for it; of several nobody knows whose."""
        if len(self._calls) == 1 or (self._is_shared and self._calls):
            self._speaker = next(iter(self._calls.values()))
            self._speaker.log.write(stream, data)
            self.send_later()
        elif self._calls:
            self._mixed_bytes += len(data)
        elif self._early_bytes < EARLY_BYTES_MAX:
            self._early.append((stream, data[: EARLY_BYTES_MAX - self._early_bytes]))
            self._early_bytes += len(data)

    def begin(self, attempt: Attempt) -> None:
        """Give a new call what was written since the last one; several items of a map leave it to the next call."""
        if attempt.chunk is not None:
            return
        early, self._early, self._early_bytes = self._early, [], 0
        for stream, data in early:
            attempt.log.write(stream, data)
        if early:
            self._speaker = attempt
            self.send_later()

    def end(self, attempt: Attempt) -> None:
        """Remark in a call that ends what could be given to nobody."""
        if self._mixed_bytes:
            text = f"{self._mixed_bytes} bytes written by several tasks at once, outside of Python, are not shown"
            attempt.log.note(text)
            self._mixed_bytes = 0
        speaker = self._speaker
        if speaker is not None and speaker is not attempt and attempt.batch and speaker.batch == attempt.batch:
            attempt.log.note(f"what its batch wrote is with jobs:{speaker.order.job}")

    def send_later(self) -> None:
        """Send the lines of all calls soon."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOG_DELAY_S, self._send)

    def close(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        self._timer = None
        for attempt in self._calls.values():
            if (lines := attempt.log.take()) and not attempt.is_dropped:
                self._reports.logs(attempt.key, lines)
