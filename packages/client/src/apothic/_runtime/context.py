"""Which call this code belongs to; carried by a context variable, so it follows threads and tasks that copy it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from apothic._runtime.output import CallOutput


class JobCancelled(BaseException):
    """Raised inside a synchronous function whose job was cancelled while its runner executes other jobs too."""


@dataclass(frozen=True)
class CurrentCall:
    """The call being executed.

    Attributes:
        id: Names the call between runner and worker.
        job: Key of the job.
        attempt: Number of the attempt, from 1.
        output: Where the text it prints goes, or None when the runner's pipes belong to it alone.
    """

    id: str
    job: str
    attempt: int
    output: CallOutput | None = None


_current: ContextVar[CurrentCall | None] = ContextVar("apothic_current_call", default=None)


def current_call() -> CurrentCall | None:
    """Return the call that this code runs for, or None outside a call."""
    return _current.get()


def enter_call(call: CurrentCall) -> None:
    """Make `call` the current one in this context; call it in a fresh copy of the context."""
    _current.set(call)
