"""Serve several calls of a synchronous function at once, each on a thread of a bounded pool."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from apothic._runtime.channel import Channel
from apothic._runtime.chunk import Chunk, run_chunk
from apothic._runtime.context import CurrentCall, JobCancelled, enter_call
from apothic._runtime.errors import describe
from apothic._runtime.invoke import Call, Outcome, read_call, reply, run_call, run_item
from apothic._runtime.items import ItemStream
from apothic._runtime.output import CallOutput, route_output


def serve_in_threads(channel: Channel, function: Callable[..., Any], *, tasks: int) -> None:
    """Answer up to `tasks` calls at once until `stop` or the end of the connection; then finish what runs.

    `cancel` raises `JobCancelled` in the call's thread at its next Python instruction; code that waits outside Python
    is not reached before it returns.
    """
    running: dict[str, _ThreadCall] = {}
    with ThreadPoolExecutor(tasks, thread_name_prefix="apothic-call") as pool:
        while (frame := channel.receive()) is not None and frame[0]["kind"] != "stop":
            head, body = frame
            if head["kind"] == "call":
                entry = _ThreadCall(channel, function, read_call(head, body))
                running[entry.call.id] = entry
                pool.submit(copy_context().run, entry.run, running)
            elif (found := running.get(str(head.get("call")))) is not None:
                found.obey(head)


class _ThreadCall:
    """One call on one thread, and the race between its end and its cancellation."""

    def __init__(self, channel: Channel, function: Callable[..., Any], call: Call) -> None:
        self.call = call
        self._channel = channel
        self._function = function
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_cancelled = False
        self._is_over = False
        self._items: ItemStream | None = None
        self._chunk = None if call.items is None else Chunk(channel, call)

    def run(self, running: dict[str, _ThreadCall]) -> None:
        """Execute the call and send its reply."""
        if self._chunk is not None:
            self._run_chunk(self._chunk, running)
            return
        output = CallOutput(self._send_text)
        enter_call(CurrentCall(self.call.id, self.call.job, self.call.attempt, output))
        route_output(output)
        try:
            outcome = self._outcome()
            self._seal()
        except JobCancelled as cancelled:  # raised between the user's code and the seal
            self._seal()
            outcome = Outcome(error=describe(cancelled))
        output.close()
        running.pop(self.call.id, None)
        self._channel.send(*reply(self.call, outcome))

    def _run_chunk(self, chunk: Chunk, running: dict[str, _ThreadCall]) -> None:
        enter_call(CurrentCall(self.call.id, self.call.job, self.call.attempt, chunk.output))
        route_output(chunk.output)
        try:
            if self._begin():
                run_chunk(chunk, lambda call: run_item(self._function, call, _drive), lambda: self._is_cancelled)
            self._seal()
        except JobCancelled:
            self._seal()
        running.pop(self.call.id, None)
        chunk.close()

    def obey(self, head: dict[str, Any]) -> None:
        """Act on a frame about the call while it runs."""
        if head["kind"] == "cancel":
            self._cancel()
        elif head["kind"] == "take_back" and self._chunk is not None:
            self._chunk.take_back()
        elif head["kind"] == "items_taken" and self._items is not None:
            self._items.taken(int(head["upto"]))

    def _cancel(self) -> None:
        """Raise `JobCancelled` in the call, once, unless it is over."""
        with self._lock:
            if self._is_over or self._is_cancelled:
                return
            self._is_cancelled = True
            if self._thread is not None:
                _raise_in_thread(self._thread, JobCancelled)

    def _begin(self) -> bool:
        """From here on the thread can be interrupted; false when the call was cancelled before."""
        with self._lock:
            self._thread = threading.get_ident()
            return not self._is_cancelled

    def _outcome(self) -> Outcome:
        if not self._begin():
            return Outcome(error=describe(JobCancelled("the job was cancelled before it started")))
        return run_call(self._function, self.call, _drive, self._open_items)

    def _open_items(self, call: str) -> ItemStream:
        self._items = ItemStream(self._channel, call)
        return self._items

    def _seal(self) -> None:
        """After this nothing can be raised in the thread any more."""
        with self._lock:
            self._is_over = True
            if self._is_cancelled and self._thread is not None:
                _raise_in_thread(self._thread, None)

    def _send_text(self, stream: str, text: str) -> None:
        self._channel.send({"kind": "log", "call": self.call.id, "stream": stream, "text": text})


def _drive(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _raise_in_thread(thread: int, kind: type[BaseException] | None) -> None:
    """Leave an exception for a thread's next instruction; None takes one back that was not raised yet."""
    argument = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)
