"""The worker's own log: an event name and fields per line, JSON unless a person watches; no user output, no tokens."""

from __future__ import annotations

import contextlib
import json
import sys
import time


def info(event: str, **fields: object) -> None:
    """Log a change that is part of normal life."""
    _write("info", event, fields)


def warning(event: str, **fields: object) -> None:
    """Log something we coped with that somebody should look at."""
    _write("warning", event, fields)


def error(event: str, **fields: object) -> None:
    """Log something that needs a person."""
    _write("error", event, fields)


def _write(level: str, event: str, fields: dict[str, object]) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if sys.stderr.isatty():
        text = f"{stamp} {level:7} {event} " + " ".join(
            f"{key}={json.dumps(value, default=str)}" for key, value in fields.items()
        )
    else:
        text = json.dumps({"time": stamp, "level": level, "event": event, **fields}, default=str)
    with contextlib.suppress(OSError):  # a full disk costs lines of the log, no user code
        sys.stderr.write(text.rstrip() + "\n")
        sys.stderr.flush()
