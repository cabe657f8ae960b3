"""Which call this code belongs to; carried by a context variable, so it follows threads and tasks that copy it.

A thread that copied no context belongs to the call of a runner that executes one at a time, when it was started during
that call. One that is older was left behind by another call and belongs to none.
"""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar, copy_context
from typing import Any, NamedTuple

from apothic._runtime.output import CallOutput


class JobCancelled(BaseException):
    """Raised inside a synchronous function whose job was cancelled, or whose attempt has to end for another reason."""


class CurrentCall(NamedTuple):
    """The call being executed.

    Attributes:
        id: Names the call between runner and worker; of an item of a chunk with its offset behind it: `5.17`.
        job: Key of the job.
        attempt: Number of the attempt, from 1.
        output: Where the text it prints goes, or None when the runner's pipes belong to it alone.
    """

    id: str
    job: str
    attempt: int
    output: CallOutput | None = None


_current: ContextVar[CurrentCall | None] = ContextVar("apothic_current_call", default=None)
NO_CALL = "0"
"""Names no call: calls are counted from 1."""

_alone: CurrentCall | None = None
_older: Any = ()


def current_call() -> CurrentCall | None:
    """Return the call that this code runs for, or None outside a call."""
    return _current.get()


def call_name() -> str:
    """Return the name of the call that this code belongs to, `NO_CALL` when it ended; empty when that is not known."""
    call = _current.get()
    if call is None and _alone is not None:
        threading: Any = sys.modules.get("threading")
        if threading is not None and threading.current_thread() in _older:
            return NO_CALL
        call = _alone
    return "" if call is None else call.id


def enter_call(call: CurrentCall) -> None:
    """Make `call` the current one in this context; call it in a fresh copy of the context."""
    _current.set(call)
    _carry_through_pools()


def enter_call_alone(call: CurrentCall) -> None:
    """As `enter_call`, for the only call of this process: threads that it starts belong to it."""
    global _alone, _older
    enter_call(call)
    threading: Any = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        _older = ()
    else:
        from weakref import WeakSet

        _older = WeakSet(thread for thread in threading.enumerate() if thread is not threading.current_thread())
    _alone = call


def _carry_through_pools() -> None:
    """Let threads of a pool, which outlive calls, work in the context of who gives them work, as asyncio's do."""
    pools: Any = sys.modules.get("concurrent.futures.thread")
    if pools is None or hasattr(pools.ThreadPoolExecutor.submit, "carries_context"):
        return
    submit: Any = pools.ThreadPoolExecutor.submit

    @functools.wraps(submit)
    def carrying(self: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, copy_context().run, function, *args, **kwargs)

    carrying.carries_context = True  # pyright: ignore[reportAttributeAccessIssue]
    pools.ThreadPoolExecutor.submit = carrying
