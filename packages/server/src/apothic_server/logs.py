"""Structured logs: an event name and fields; JSON when not on a terminal. Secrets, arguments, results never go in."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Enduring:
    """A log that loses lines while its disk is full, so that nobody who logs fails for it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(stream: TextIO | None = None, *, is_terminal: bool | None = None) -> None:
    """Send logs of this process to `stream` (standard error by default)."""
    out = stream or sys.stderr
    terminal = out.isatty() if is_terminal is None else is_terminal
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    # uvicorn reports a link that the gate refused as an error of ours.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    # The driver tells each connection that it cannot renew while the store is away; the store tells it once.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    _adopt_standard_logging(out, before, renderer)
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Enduring(out))),
        cache_logger_on_first_use=True,
    )


def _adopt_standard_logging(
    out: TextIO, before: list[structlog.typing.Processor], renderer: structlog.typing.Processor
) -> None:
    """Send warnings of libraries the same way, so that none of them writes to a person's terminal."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
