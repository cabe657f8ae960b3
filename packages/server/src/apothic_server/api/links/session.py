"""One open worker link: decodes messages, hands them to the dispatcher in acting order, coalesces what it answers.

A message is acted on where it is read. Only a hello and a heartbeat wait, for the store: meanwhile nothing is read, and
what was read already waits behind them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, Protocol

import msgspec
import structlog

from apothic.wire.limits import LINK_FRAME_MAX
from apothic.wire.link import Hello, Refused, WorkerFrame
from apothic_server.api.links.codec import BadMessageError, decode_worker
from apothic_server.domain.access import Actor
from apothic_server.domain.errors import Moved, PlatformError, Unavailable
from apothic_server.domain.fleet import Worker
from apothic_server.services.links import Links

log = structlog.get_logger("apothic.link")

_encode = msgspec.msgpack.Encoder().encode
GOING_AWAY, BAD_FRAME, REFUSED, SUPERSEDED = 1001, 1007, 1008, 4001
"""Close codes, as in `docs/reference/worker-link.md`."""

HELLO_S = 10.0
"""Time for the first message of a worker."""

SETTLED_DELAY_S = 0.02
"""`settled` is in no hurry: only a worker that drains waits for it."""

FRAME_SOFT_MAX = LINK_FRAME_MAX // 4
"""A frame is cut before the item that would take it past this size."""


class Wire(Protocol):
    """What carries a session."""

    def write(self, message: bytes, /) -> None:
        """Send one message. Never blocks, never raises."""
        ...

    def pause(self) -> None:
        """Bring no messages until `resume`, but those that are here already."""
        ...

    def resume(self) -> None:
        """Bring messages again."""
        ...


class Session:
    """The server's end of one link; implements `services.dispatch.board.Link`."""

    def __init__(self, links: Links, actor: Actor, wire: Wire) -> None:
        self._links = links
        self._actor = actor
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._outbox: list[tuple[str, Any]] = []
        self._inbox: deque[bytes] = deque()
        self._acting: asyncio.Task[None] | None = None
        self._is_receiving = self._is_flush_due = False
        self._worker: Worker | None = None
        self._close_code = GOING_AWAY
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._settled_timer: asyncio.TimerHandle | None = None

    async def run(self, gone: Awaitable[object]) -> int:
        """Serve the link until either side closes it; returns the close code.

        Args:
            gone: Ends with the connection.
        """
        hanging_up = asyncio.ensure_future(gone)
        hello_timer = self._loop.call_later(HELLO_S, self._hello_is_late)
        try:
            await asyncio.wait([hanging_up, self._over], return_when=asyncio.FIRST_COMPLETED)
            while self._acting is not None:
                await asyncio.wait([self._acting])
            self.end(GOING_AWAY)
            self._over.result()
        finally:
            hello_timer.cancel()
            hanging_up.cancel()
            if self._acting is not None:
                self._acting.cancel()
            if self._worker is not None:
                self._links.closed(self._worker, self)
            self.end(GOING_AWAY)
            if self._settled_timer is not None:
                self._settled_timer.cancel()
        return self._close_code

    # --- what the server says

    def send(self, name: str, item: Any) -> None:
        """Queue an item; everything queued in one tick of the event loop travels in one frame.

        `settled` rides with the next item, or goes alone after `SETTLED_DELAY_S`.
        """
        if self._over.done():
            return
        self._outbox.append((name, item))
        if name != "settled":
            if not self._is_flush_due and not self._is_receiving:
                self._is_flush_due = True
                self._loop.call_soon(self._flush)
        elif self._settled_timer is None:
            self._settled_timer = self._loop.call_later(SETTLED_DELAY_S, self._flush_settled)

    def close(self, code: str, detail: str, url: str | None = None) -> None:
        """Refuse the link: the frame goes out, then the connection ends."""
        log.info("link.refused", org=self._actor.org, code=code, detail=detail)
        self.send("refused", Refused(code, detail, url))
        self.end(REFUSED)

    def supersede(self) -> None:
        """The worker opened a newer link."""
        self.end(SUPERSEDED)

    def end(self, close_code: int) -> None:
        """End the connection after what is queued went out."""
        if not self._over.done():
            self._flush()
            self._close_code = close_code
            if not self._over.done():
                self._over.set_result(None)

    def _flush_settled(self) -> None:
        self._settled_timer = None
        self._flush()

    def _flush(self) -> None:
        self._is_flush_due = False
        try:
            while self._outbox:
                self._wire.write(self._next_frame())
        except Exception as error:  # what is missing now is told when the worker dials again
            self._outbox.clear()
            self._failed(error)

    def _next_frame(self) -> bytes:
        frame: dict[str, list[Any]] = {}
        size = taken = 0
        for name, item in self._outbox:
            weight = len(item.arguments.data) if name == "assign" else 256
            if taken and size + weight > FRAME_SOFT_MAX:
                break
            frame.setdefault(name, []).append(item)
            size += weight
            taken += 1
        del self._outbox[:taken]
        return _encode(frame)

    # --- what the worker says

    def receive(self, message: bytes) -> None:
        """Act on one message, or keep it until what waits for the store is done."""
        if self._acting is not None:
            self._inbox.append(message)
        elif not self._over.done():
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        self._is_receiving = True
        try:
            frame = decode_worker(message)
            if self._worker is None or frame.get("heartbeat"):
                self._act_later(frame)
            else:
                self._links.report(self._worker, frame)
        except Exception as error:
            self._failed(error)
        finally:
            self._is_receiving = False
        if any(name != "settled" for name, _ in self._outbox):
            self._flush()

    def _act_later(self, frame: WorkerFrame) -> None:
        self._wire.pause()
        self._acting = self._loop.create_task(self._act(frame), name="link reader")

    async def _act(self, frame: WorkerFrame) -> None:
        try:
            if self._worker is None:
                await self._greet(frame.get("hello", []))
            if self._worker is not None:
                for heartbeat in frame.get("heartbeat", []):
                    await self._links.heartbeat(self._worker, heartbeat)
                self._links.report(self._worker, frame)
        except Exception as error:
            self._failed(error)
        self._acting = None
        while self._inbox and self._acting is None:
            self.receive(self._inbox.popleft())
        if self._acting is None:
            self._wire.resume()

    async def _greet(self, hellos: list[Hello]) -> None:
        if len(hellos) != 1:
            self.end(BAD_FRAME)
            return
        self._worker = await self._links.opened(self._actor, hellos[0], self)

    def _hello_is_late(self) -> None:
        if self._worker is None and self._acting is None:
            self._failed(Unavailable("no hello came in time; dial again"))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, BadMessageError):
            log.warning("link.bad_frame", org=self._actor.org, error=str(error))
            self.end(BAD_FRAME)
        elif isinstance(error, PlatformError):
            self.close(error.code, error.detail, error.url if isinstance(error, Moved) else None)
        elif not self._over.done():
            self._over.set_exception(error)
