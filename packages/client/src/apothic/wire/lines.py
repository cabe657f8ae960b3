"""A line of output, as the worker link carries it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogLine:
    """One line of output of one attempt.

    Attributes:
        stream: `stdout`, `stderr` or `system` (our own remarks, such as a count of dropped bytes).
        at_ms: Unix time in milliseconds on the worker.
        text: Without its line end; at most `LOG_LINE_MAX` bytes of UTF-8.
        is_partial: The line was longer and goes on in the next item.
    """

    stream: str
    at_ms: int
    text: str
    is_partial: bool = False
