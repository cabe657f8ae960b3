"""The items of one call of a map, executed one after the other; what becomes of them leaves in batches.

A batch leaves after an item that ended `FLUSH_S` or longer after the last batch, so that quick items cost few frames,
and slow ones are known as soon as they ended. The last batch ends the call. It comes before all items are done when the
rest was asked back, when the outcomes grew large, and when the call was interrupted; the item that was interrupted has
no outcome then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, TypeVar

from apothic._runtime.channel import Channel
from apothic._runtime.context import CurrentCall, JobCancelled, enter_call
from apothic._runtime.errors import describe
from apothic._runtime.invoke import Call, Outcome, run_item_async
from apothic._runtime.output import CallOutput, flush_streams
from apothic._serialize import ValueTooLarge
from apothic.wire.chunks import ENTRY_OVERHEAD, ERROR, KINDS, pack, unpack
from apothic.wire.limits import CHUNK_OUTCOMES_MAX, KIB
from apothic.wire.runner import error_to_json

T = TypeVar("T")
FLUSH_S = 0.001
FLUSH_BYTES = 64 * KIB


class Chunk:
    """The items of one call, and how far it is.

    Args:
        channel: Connection to the worker.
        call: What the worker sent.
        hear: Called now and then between two items: has `take_back` called when the worker said so. None when another
            thread or the event loop hears the worker by itself.

    Attributes:
        output: Where the text goes that the item under way prints.
    """

    def __init__(self, channel: Channel, call: Call, hear: Callable[[], None] | None = None) -> None:
        assert call.items is not None
        self.call = call
        self.output = CallOutput(self._send_text, is_eager=False)
        self._channel = channel
        self._order = call.items
        self._hear = hear
        self._offset = 0
        self._is_over = False
        self._is_interrupted = False
        self._entries: list[bytes] = []
        self._bytes = 0
        self._bytes_sent = 0
        self._python: str | None = None
        self._sent_at = time.monotonic()

    def batches(self, size: int) -> Iterator[list[Call]]:
        """Yield the calls of up to `size` items to execute together; tell `add` their outcomes before going on."""
        entries = unpack(self.call.arguments.data)
        for first in range(0, len(entries), size):
            if self._is_over:
                return
            self._offset = first
            yield [self.call.of_item(first + at, entry) for at, entry in enumerate(entries[first : first + size])]

    def calls(self) -> Iterator[Call]:
        """Yield the call of each item; tell `add` its outcome before going on."""
        for offset, entry in enumerate(unpack(self.call.arguments.data)):
            if self._is_over:
                return
            self._offset = offset
            yield self.call.of_item(offset, entry)

    def add(self, *outcomes: Outcome) -> None:
        """Take the outcomes of the items under way, unless they were interrupted; what is too much is left out."""
        if self.output.is_pending:
            self.output.flush()
        if self._is_interrupted:
            return
        left, sent_at = self._order.count - self._offset, self._sent_at
        for outcome in outcomes:
            left -= 1
            entry = self._encoded(outcome)
            self._bytes += len(entry) + ENTRY_OVERHEAD
            self._entries.append(entry)
            if self._bytes + self._bytes_sent >= CHUNK_OUTCOMES_MAX:
                self._is_over = True
                return
            if left and self._bytes >= FLUSH_BYTES:
                self._flush(is_last=False)
        if left and self._entries and time.monotonic() - self._sent_at >= FLUSH_S:
            self._flush(is_last=False)
        if self._sent_at != sent_at and self._hear is not None:
            self._hear()

    @property
    def name_of_item(self) -> str:
        """Name of the call of the item under way, by which its requests tell who calls."""
        return f"{self.call.id}.{self._offset}"

    def take_back(self) -> None:
        """Begin no further item."""
        self._is_over = True

    def interrupt(self) -> None:
        """The item under way was interrupted, so it has no outcome; begin no further one."""
        self._is_over = self._is_interrupted = True

    def close(self) -> None:
        """Send what was not sent, and end the call."""
        self.output.close()
        self._flush(is_last=True)

    def _encoded(self, outcome: Outcome) -> bytes:
        value, error = outcome.value, outcome.error
        if value is not None and value.encoding not in KINDS:
            error = describe(
                ValueTooLarge("the result of an item of a map cannot be an uploaded one"), "result_too_large"
            )
        if value is None or error is not None:
            assert error is not None
            return ERROR + json.dumps(error_to_json(error), separators=(",", ":")).encode()
        if value.python is not None:
            self._python = value.python
        return KINDS[value.encoding] + value.data

    def _flush(self, *, is_last: bool) -> None:
        flush_streams()
        # Taken out before it is sent: a cancellation raised in between may lose outcomes, but never repeat them.
        entries, self._entries = self._entries, []
        self._bytes_sent += self._bytes
        self._bytes = 0
        head = {"kind": "done", "call": self.call.id, "count": len(entries), "is_last": is_last}
        self._channel.send({**head, "python": self._python}, pack(entries))
        self._sent_at = time.monotonic()

    def _send_text(self, stream: str, text: str) -> None:
        head = {"kind": "log", "call": self.call.id, "item": self._offset, "stream": stream, "text": text}
        self._channel.send(head)


def run_chunk(chunk: Chunk, execute: Callable[[Call], Outcome], is_interrupted: Callable[[], bool]) -> None:
    """Execute the items of a synchronous function; `chunk` is still to be closed.

    Args:
        chunk: Its items.
        execute: Executes the call of one of them.
        is_interrupted: Whether the item that just ended was told to.
    """
    try:
        for call in chunk.calls():
            outcome = copy_context().run(_entered, chunk, call, execute)
            if is_interrupted():
                chunk.interrupt()
            chunk.add(outcome)
    except JobCancelled:  # raised beside the code of an item
        chunk.interrupt()


def run_chunk_together(
    chunk: Chunk, size: int, execute: Callable[[list[Call]], list[Outcome]], is_interrupted: Callable[[], bool]
) -> None:
    """Execute the items of a function that takes lists, up to `size` at once; `chunk` is still to be closed.

    `execute` executes the calls of one batch; to the world it is the first of them.
    """
    try:
        for calls in chunk.batches(size):
            outcomes = copy_context().run(_entered, chunk, calls[0], lambda _, calls=calls: execute(calls))
            if is_interrupted():
                chunk.interrupt()
            chunk.add(*outcomes)
    except JobCancelled:  # raised beside the code of a batch
        chunk.interrupt()


async def run_chunk_async(chunk: Chunk, function: Callable[..., Any], is_interrupted: Callable[[], bool]) -> None:
    """Like `run_chunk` for an `async def` function; each item is a task of its own, with a context of its own."""
    from asyncio import CancelledError, get_running_loop

    loop = get_running_loop()
    try:
        for call in chunk.calls():
            context = copy_context()
            context.run(_enter, chunk, call)
            outcome = await context.run(loop.create_task, run_item_async(function, call))
            if is_interrupted():
                chunk.interrupt()
            chunk.add(outcome)
    except CancelledError:  # before the first step of an item
        chunk.interrupt()


def _entered(chunk: Chunk, call: Call, execute: Callable[[Call], T]) -> T:
    _enter(chunk, call)
    return execute(call)


def _enter(chunk: Chunk, call: Call) -> None:
    enter_call(CurrentCall(chunk.name_of_item, call.job, call.attempt, chunk.output))
