"""Serve calls one at a time, on the main thread: signals and C code behave as in a script, and no thread is made."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from apothic._runtime.batch import run_batch
from apothic._runtime.channel import Channel
from apothic._runtime.chunk import Chunk, run_chunk, run_chunk_async, run_chunk_together
from apothic._runtime.context import CurrentCall, JobCancelled, enter_call_alone
from apothic._runtime.errors import describe
from apothic._runtime.invoke import Call, Outcome, read_call, reply, run_call, run_call_async, run_item
from apothic._runtime.items import ItemStream
from apothic._runtime.output import route_output
from apothic._runtime.stopping import Stopping, raise_cancelled


def serve_serially(channel: Channel, function: Callable[..., Any], *, is_async: bool) -> None:
    """Answer calls in order until `stop` or the end of the connection.

    Coroutines run on one event loop that lives as long as the runner, so that clients bound to it stay usable; it
    stands still between calls. `sys.exit()` inside a call fails the call and nothing else.
    """
    stopping = Stopping()
    stopping.install()
    loop = _Loop(channel, stopping)
    batch: list[Call] = []
    try:
        while (frame := channel.receive()) is not None and frame[0]["kind"] != "stop":
            if frame[0]["kind"] == "call":
                call = read_call(*frame)
                if (following := frame[0].get("batch")) is not None:
                    batch.append(call)
                    if following == 0:
                        calls, batch = batch, []
                        _answer_batch(channel, function, calls, loop)
                    continue
                if call.items is not None:
                    size = int(frame[0].get("together", 0))
                    chunk = loop.open_chunk(call, is_async=is_async and not size)
                    copy_context().run(_run_chunk, function, chunk, loop, is_async, size)
                    stopping.end_if_asked()
                    continue
                outcome = copy_context().run(_run, function, call, loop, is_async)
                stopping.end_if_asked()
                channel.send(*reply(call, outcome))
    finally:
        loop.close()


def _answer_batch(channel: Channel, function: Callable[..., Any], calls: list[Call], loop: _Loop) -> None:
    outcomes = copy_context().run(_run_batch, function, calls, loop)
    loop.stopping.end_if_asked()
    for call, outcome in zip(calls, outcomes, strict=True):
        channel.send(*reply(call, outcome))


def _run_batch(function: Callable[..., Any], calls: list[Call], loop: _Loop) -> list[Outcome]:
    """Execute a batch; to the world it is the first of its calls."""
    first, stopping = calls[0], loop.stopping
    enter_call_alone(CurrentCall(first.id, first.job, first.attempt))
    try:
        stopping.interrupt = raise_cancelled
        return run_batch(function, calls, loop.drive)
    except JobCancelled as cancelled:  # raised beside the code of the calls
        return [Outcome(error=describe(cancelled))] * len(calls)
    finally:
        stopping.interrupt = None


def _run_chunk(function: Callable[..., Any], chunk: Chunk, loop: _Loop, is_async: bool, size: int) -> None:
    call, stopping = chunk.call, loop.stopping
    enter_call_alone(CurrentCall(call.id, call.job, call.attempt, chunk.output))
    route_output(chunk.output)

    def execute(call: Call) -> Outcome:
        try:
            stopping.interrupt = raise_cancelled
            return run_item(function, call, loop.drive)
        except JobCancelled as cancelled:
            return Outcome(error=describe(cancelled))
        finally:
            stopping.interrupt = _nothing

    def execute_batch(calls: list[Call]) -> list[Outcome]:
        try:
            stopping.interrupt = raise_cancelled
            return run_batch(function, calls, loop.drive)
        except JobCancelled as cancelled:
            return [Outcome(error=describe(cancelled))] * len(calls)
        finally:
            stopping.interrupt = _nothing

    stopping.interrupt = _nothing
    try:
        if size:
            run_chunk_together(chunk, size, execute_batch, stopping.was_asked)
        elif is_async:
            loop.drive(run_chunk_async(chunk, function, stopping.was_asked))
        else:
            run_chunk(chunk, execute, stopping.was_asked)
        chunk.close()
    finally:
        stopping.interrupt = None


def _nothing() -> None:
    """Between two items nothing has to be interrupted: it is noticed before the next one."""


def _run(function: Callable[..., Any], call: Call, loop: _Loop, is_async: bool) -> Outcome:
    enter_call_alone(CurrentCall(call.id, call.job, call.attempt))
    if is_async:
        return loop.drive(run_call_async(function, call, loop.open_items))
    stopping = loop.stopping
    try:
        stopping.interrupt = raise_cancelled
        return run_call(function, call, loop.drive, loop.open_blocking_items)
    except JobCancelled as cancelled:  # raised beside the code of the call
        return Outcome(error=describe(cancelled))
    finally:
        stopping.interrupt = None


class _Loop:
    """An event loop that is made when the first coroutine comes; and who hears which items were taken meanwhile."""

    def __init__(self, channel: Channel, stopping: Stopping) -> None:
        self.stopping = stopping
        self._channel = channel
        self._items: ItemStream | None = None
        self._chunk: Chunk | None = None
        self._loop: Any = None

    def open_chunk(self, call: Call, *, is_async: bool) -> Chunk:
        """Return the items of a call. Without an event loop they look themselves whether they are asked back."""
        hear = None if is_async else lambda: self._hear(None, wait=False)
        self._chunk = Chunk(self._channel, call, hear)
        return self._chunk

    def open_blocking_items(self, call: str) -> ItemStream:
        """Return the way of the items of a call that blocks this thread."""
        items = ItemStream(self._channel, call, hear=lambda wait: self._hear(items, wait=wait))
        self._items = None
        return items

    def open_items(self, call: str) -> ItemStream:
        """Return the way of the items of a call on the event loop, which hears what is taken between its steps."""
        self._items = ItemStream(self._channel, call)
        return self._items

    def drive(self, coroutine: Any) -> Any:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        self._loop.add_reader(self._channel.fileno(), self._readable)
        before = self.stopping.interrupt
        try:
            self.stopping.interrupt = lambda: self._loop.call_soon_threadsafe(task.cancel)
            return self._run(task)
        finally:
            self.stopping.interrupt = before
            self._loop.remove_reader(self._channel.fileno())

    def _run(self, task: Any) -> Any:
        while True:
            try:
                return self._loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                # Raised by a task that the call started; asyncio hands them to whoever runs the loop.
                if task.done():
                    raise

    def _readable(self) -> None:
        try:
            self._hear(self._items, wait=False)
        except ConnectionResetError:  # whoever receives or sends next notices it
            self._loop.remove_reader(self._channel.fileno())

    def _hear(self, items: ItemStream | None, *, wait: bool) -> None:
        for head in self._channel.receive_of_call(wait=wait):
            if head["kind"] == "take_back":
                if self._chunk is not None and head["call"] == self._chunk.call.id:
                    self._chunk.take_back()
            elif items is not None and head["call"] == items.call:
                items.taken(int(head["upto"]))

    def close(self) -> None:
        if self._loop is None:
            return
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
