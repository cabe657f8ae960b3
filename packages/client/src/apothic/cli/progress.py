"""How far a job is, on standard error while somebody waits: one line that is drawn again, or a line for each change."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from apothic.cli.console import say

WAITING = frozenset({"queued", "retrying"})
TICK_S = 0.5
LOOK_EVERY = 4
"""While a job waits, every so many ticks it is asked why, the first time after one tick."""

_SAID = {
    "retrying": "waits to be tried again",
    "cancelling": "is being cancelled",
    "succeeded": "has succeeded",
    "failed": "has failed",
    "timed_out": "has timed out",
    "cancelled": "was cancelled",
}
_CLEAR = "\r\x1b[2K"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Progress:
    """Shows a job's status, why it waits, its attempt and the time since the call; nothing of it stays on a terminal.

    Args:
        name: Of the function.
        reason: Says why the job waits; None when it does not, or when that is not known. Called by a thread.
    """

    def __init__(self, job_id: str, name: str, reason: Callable[[], str | None]) -> None:
        self._job_id = job_id
        self._name = name
        self._ask = reason
        self._status = ""
        self._attempt = 0
        self._reason: str | None = None
        self._told = ""
        self._is_live = is_terminal()
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._stop = threading.Event()

    @contextmanager
    def shown(self) -> Generator[None, None, None]:
        """Show it until the block ends."""
        threading.Thread(target=self._keep, name="progress", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._stop.set()
                self._clear()

    def changed(self, status: str, attempt: int | None, note: str = "") -> None:
        """The job has another status; `note` says more about it."""
        with self._lock:
            self._status, self._attempt, self._reason = status, attempt or self._attempt, note or None
            if not self._is_live:
                which = f", attempt {attempt}" if attempt and status == "running" else ""
                say(f"{self._job_id}: {status}{which}{f': {note}' if note else ''}")
            self._draw()

    @contextmanager
    def above(self) -> Generator[None, None, None]:
        """Let the block print lines; they stand above the line of progress."""
        with self._lock:
            self._clear()
            yield
            self._draw()

    def _keep(self) -> None:
        ticks = 0
        while not self._stop.wait(TICK_S):
            status, is_due = self._status, ticks % LOOK_EVERY == 0
            ticks = ticks + 1 if status in WAITING else 0
            reason = self._ask() if status in WAITING and is_due else None
            with self._lock, suppress(OSError):  # whoever shows the job's output learns that nobody reads it
                if self._stop.is_set():
                    return
                if reason is not None and status == self._status:
                    self._because(reason)
                self._draw()

    def _because(self, reason: str) -> None:
        self._reason = reason
        words = re.sub("[0-9]+", "", reason)
        if not self._is_live and words != self._told:
            say(f"{self._job_id}: {reason}" if reason.startswith("waits ") else f"{self._job_id}: waits: {reason}")
        self._told = words

    def _draw(self) -> None:
        if not self._is_live or not self._status:
            return
        text = progress_line(self._name, self._job_id, self._status, self._attempt, self._reason, self._elapsed_s())
        self._write(f"{_CLEAR}{fitted(text)}")

    def _clear(self) -> None:
        if self._is_live and self._status:
            self._write(_CLEAR)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def progress_line(name: str, job_id: str, status: str, attempt: int, reason: str | None, elapsed_s: float) -> str:
    """Return one line about a job; what matters most comes first, because a terminal may be narrow."""
    which = f", attempt {attempt}" if attempt > 1 else ""
    why = f", {reason}" if reason else ""
    return f"{name} {said_of(status)}{which}, {elapsed(elapsed_s)}{why} ({job_id})"


def said_of(status: str) -> str:
    """Return what is said of a job with a status, after its name."""
    return _SAID.get(status, f"is {status}")


def elapsed(seconds: float) -> str:
    """Return a duration as people say it."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def is_terminal() -> bool:
    """Whether a line on stderr can be drawn again: a terminal that can do that, and nobody collects it."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def fitted(text: str) -> str:
    """Return a line of progress as it is drawn: within the terminal's width, and dim where colours are wanted."""
    text = text[: max(0, _columns() - 1)]
    return text if os.environ.get("NO_COLOR") else f"{_DIM}{text}{_PLAIN}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
