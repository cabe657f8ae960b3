"""Errors of attempts that the worker itself reports, and the exceptions that lead to them."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from apothic.wire.runner import error_from_json
from apothic.wire.values import RemoteError

OURS = frozenset(
    {
        "deadline_exceeded",
        "deployment_deleted",
        "disk_limit",
        "exited",
        "isolation_refused",
        "killed_by_signal",
        "out_of_memory",
        "startup_timeout",
        "timeout",
        "worker_lost",
    }
)
"""Codes that only this worker and the server give: from a runner they are forged, because it lives."""


class StartFailed(Exception):
    """A runner cannot be started.

    Attributes:
        error: What its attempts are told.
        is_lost: Whether no user code is to blame, so that another worker may do better.
    """

    def __init__(self, error: RemoteError, *, is_lost: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_lost = is_lost


def failure(code: str, message: str) -> RemoteError:
    """Return an error of ours; `code` is one of those listed at `RemoteError`."""
    return RemoteError(type="apothic.AttemptFailed", message=message, code=code)


def error_of_user(data: dict[str, Any]) -> RemoteError:
    """Return an error that a runner told, without a code that only we give.

    Raises:
        KeyError, TypeError, AttributeError: User code forged it.
    """
    error = error_from_json(data)
    return replace(error, code="exception") if error.code in OURS else error


def unstarted(load_error: RemoteError | None, *, is_lost: bool) -> str:
    """Return the outcome of an attempt that user code never saw: lost, unless it is known that it cannot be loaded."""
    if load_error is None or is_lost:
        return "lost"
    return "timed_out" if load_error.code == "startup_timeout" else "failed"


def time_limit(code: str, timeout_s: int) -> RemoteError:
    """Return why an attempt was stopped: its own `timeout_s`, or the `deadline_s` of its job."""
    if code == "timeout":
        return failure(code, f"the attempt ran longer than {timeout_s} s")
    return failure(code, "the job did not end within its deadline_s")


def disk_limit() -> RemoteError:
    """Return why an attempt was stopped whose runner wrote most to a disk that is nearly full."""
    return failure(
        "disk_limit", "the machine's disk is nearly full and the function wrote most to it, so it was stopped"
    )


def death(code: int | None, number: int | None, memory_mb: int | None) -> RemoteError:
    """Return why a runner's process is gone.

    Args:
        code: Exit code, when it exited.
        number: Signal, when one killed it.
        memory_mb: The memory limit, when exceeding it was the cause.
    """
    if memory_mb is not None:
        return failure("out_of_memory", f"the function used more than its {memory_mb} MiB of memory and was killed")
    if number is not None:
        return failure("killed_by_signal", f"the runner's process was killed by {_signal_name(number)}")
    return failure("exited", f"the runner's process exited with code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
