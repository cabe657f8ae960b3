"""Items of generators on their way to the worker: in batches, and never more than a window ahead of those taken.

A batch leaves when it is large, when the last one left a while ago, or soon after by the flusher's hand, so that a fast
generator costs few frames and a slow one no delay. The thread of the flusher is made with the first item that has to
wait; it takes no signals, so that those of user code still reach the main thread.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from apothic._runtime.channel import Channel
from apothic._serialize import encode_item
from apothic.wire.items import pack_items
from apothic.wire.limits import ITEM_BATCH_BYTES, ITEM_BATCH_MAX, ITEM_OVERHEAD, ITEM_WINDOW_BYTES

if TYPE_CHECKING:
    import asyncio

QUIET_S = 0.01
"""An item that comes this long after the last batch is not kept back for company."""

FLUSH_DELAY_S = 0.003
"""Longest that an item waits for company, while the flusher gets to run."""

HEAR_BATCHES = 16
"""A thread that hears for itself does so after this many batches, so that what it is told does not pile up."""

WAKE_S = 0.5
"""A thread that waits for room looks around this often: a cancellation reaches it only between two waits."""


class ItemStream:
    """The items of one call. One thread or task puts them in; others flush and hear what was taken.

    Args:
        channel: Connection to the worker.
        call: Names the call on it.
        hear: Has what was taken told to `taken`, after waiting for it when its argument is true; None when another
            thread or the event loop does that by itself.
    """

    def __init__(self, channel: Channel, call: str, hear: Callable[[bool], None] | None = None) -> None:
        self.call = call
        self.batches_sent = 0
        self._channel = channel
        self._hear = hear
        self._heard_after = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._encoding: str = "json"
        self._python: str | None = None
        self._count = 0
        self._sent = 0
        self._sent_at = 0.0
        self._unacked: deque[tuple[int, int]] = deque()
        self._unacked_bytes = 0
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next batch might not fit the window."""
        return self._unacked_bytes + ITEM_BATCH_MAX > ITEM_WINDOW_BYTES

    def put(self, item: object) -> None:
        """Add an item; never waits for room.

        Raises:
            NotSerializable, ValueTooLarge: The item cannot travel; the message names its ordinal.
            OSError: The worker is gone.
        """
        value = encode_item(item, self._count)
        with self._lock:
            if self._batch and (value.encoding != self._encoding or value.python != self._python):
                self._send()
            self._encoding, self._python = value.encoding, value.python
            self._batch.append(value.data)
            self._batch_bytes += len(value.data) + ITEM_OVERHEAD
            self._count += 1
            is_due = self._batch_bytes >= ITEM_BATCH_BYTES or time.monotonic() - self._sent_at >= QUIET_S
            if is_due:
                self._send()
        if not is_due:
            _flusher.later(self)
        if self._hear is not None and self.batches_sent - self._heard_after >= HEAR_BATCHES:
            self._heard_after = self.batches_sent
            self._hear(False)

    def flush(self) -> None:
        """Send what was kept back."""
        with self._lock:
            if self._batch:
                self._send()

    def taken(self, upto: int) -> None:
        """The items below this ordinal are kept by the server: they are out of the window."""
        with self._lock:
            while self._unacked and self._unacked[0][0] <= upto:
                self._unacked_bytes -= self._unacked.popleft()[1]
            self._room.notify_all()
            waiter = self._waiter
        if waiter is not None and not waiter[1].done():
            waiter[1].set_result(None)

    def wait_for_room(self) -> None:
        """Block while the window is full."""
        self.flush()
        while self.is_full:
            if self._hear is not None:
                self._hear(True)
                continue
            with self._lock:
                if self.is_full:
                    self._room.wait(WAKE_S)

    async def room(self) -> None:
        """Wait while the window is full; `taken` must be called in the same event loop."""
        self.flush()
        from asyncio import get_running_loop

        loop = get_running_loop()
        while self.is_full:
            self._waiter = (loop, loop.create_future())
            try:
                if self.is_full:
                    await self._waiter[1]
            finally:
                self._waiter = None

    def _send(self) -> None:
        body = pack_items(self._encoding, self._batch)
        count, weight = len(self._batch), self._batch_bytes
        head = {"kind": "items", "call": self.call, "first": self._sent, "count": count, "encoding": self._encoding}
        self._batch = []
        self._batch_bytes = 0
        self._sent += count
        self._unacked.append((self._sent, weight))
        self._unacked_bytes += weight
        self.batches_sent += 1
        self._channel.send({**head, "python": self._python}, body)
        self._sent_at = time.monotonic()


class Flusher:
    """Sends what streams keep back, `FLUSH_DELAY_S` after the first of them asked for it."""

    def __init__(self) -> None:
        self._streams: set[ItemStream] = set()
        self._wake = threading.Event()
        self._process = 0

    def later(self, stream: ItemStream) -> None:
        """Flush a stream soon."""
        if stream not in self._streams:
            self._streams.add(stream)
            self._wake.set()
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._run, name="apothic-items", daemon=True).start()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(FLUSH_DELAY_S)
            streams, self._streams = self._streams, set()
            for stream in streams:
                try:
                    stream.flush()
                except OSError:  # the worker is gone; the main thread notices by itself
                    return


_flusher = Flusher()
