"""Serve calls one at a time, on the main thread: signals and C code behave as in a script, and no thread is made."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from apothic._runtime.channel import Channel
from apothic._runtime.context import CurrentCall, enter_call
from apothic._runtime.invoke import Call, Outcome, read_call, reply, run_call, run_call_async


def serve_serially(channel: Channel, function: Callable[..., Any], *, is_async: bool) -> None:
    """Answer calls in order until `stop` or the end of the connection.

    Coroutines run on one event loop that lives as long as the runner, so that clients bound to it stay usable; it
    stands still between calls. `sys.exit()` inside a call fails the call and nothing else.
    """
    loop = _Loop()
    try:
        while (frame := channel.receive()) is not None and frame[0]["kind"] != "stop":
            if frame[0]["kind"] == "call":
                channel.send(*_answer(function, read_call(*frame), loop, is_async=is_async))
    finally:
        loop.close()


def _answer(function: Callable[..., Any], call: Call, loop: _Loop, *, is_async: bool) -> tuple[dict[str, Any], bytes]:
    outcome: Outcome = copy_context().run(_run, function, call, loop, is_async)
    return reply(call, outcome)


def _run(function: Callable[..., Any], call: Call, loop: _Loop, is_async: bool) -> Outcome:
    enter_call(CurrentCall(call.job, call.attempt))
    if is_async:
        return loop.drive(run_call_async(function, call))
    return run_call(function, call, loop.drive)


class _Loop:
    """An event loop that is made when the first coroutine comes."""

    def __init__(self) -> None:
        self._loop: Any = None

    def drive(self, coroutine: Any) -> Any:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        while True:
            try:
                return self._loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                # Raised by a task that the call started; asyncio hands them to whoever runs the loop.
                if task.done():
                    raise

    def close(self) -> None:
        if self._loop is None:
            return
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
