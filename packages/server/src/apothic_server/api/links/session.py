"""One open worker link: decodes frames, hands items to the dispatcher in acting order, coalesces what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

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

SendBytes = Callable[[bytes], Awaitable[None]]
ReceiveBytes = Callable[[], Awaitable[bytes | None]]

_encode = msgspec.msgpack.Encoder().encode
GOING_AWAY, BAD_FRAME, REFUSED, SUPERSEDED = 1001, 1007, 1008, 4001
"""Close codes, as in `docs/reference/worker-link.md`."""

HELLO_S = 10.0
"""Time for the first message of a worker."""

SETTLED_DELAY_S = 0.005

FRAME_SOFT_MAX = LINK_FRAME_MAX // 4
"""A frame is cut before the item that would take it past this size."""


class Session:
    """The server's end of one link; implements `services.dispatch.board.Link`."""

    def __init__(self, links: Links, actor: Actor, receive: ReceiveBytes, send: SendBytes) -> None:
        self._links = links
        self._actor = actor
        self._receive = receive
        self._send = send
        self._outbox: list[tuple[str, Any]] = []
        self._wake = asyncio.Event()
        self._is_closed = self._is_receiving = False
        self._worker: Worker | None = None
        self._close_code = GOING_AWAY
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Serve the link until either side closes it; returns the close code."""
        writing = asyncio.create_task(self._write(), name="link writer")
        reading = asyncio.create_task(self._read(), name="link reader")
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            self.end(self._close_code)
            if self._is_receiving:
                reading.cancel()  # nothing may come for long
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()
        finally:
            reading.cancel()
            if self._worker is not None:
                self._links.closed(self._worker, self)
            self.end(self._close_code)
            if self._timer is not None:
                self._timer.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        return self._close_code

    def send(self, name: str, item: Any) -> None:
        """Queue an item; everything queued in one tick of the event loop travels in one frame.

        `settled` is in no hurry: it rides with the next item, or goes alone after `SETTLED_DELAY_S`.
        """
        if self._is_closed:
            return
        self._outbox.append((name, item))
        if name != "settled":
            self._wake.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLED_DELAY_S, self._wake_later)

    def _wake_later(self) -> None:
        self._timer = None
        self._wake.set()

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
        if not self._is_closed:
            self._close_code = close_code
            self._is_closed = True
            self._wake.set()

    async def _read(self) -> None:
        while not self._is_closed:
            try:
                data = await self._next()
                if data is None:
                    return
                await self._act(decode_worker(data))
            except BadMessageError as error:
                log.warning("link.bad_frame", org=self._actor.org, error=str(error))
                self.end(BAD_FRAME)
            except PlatformError as error:
                self.close(error.code, error.detail, error.url if isinstance(error, Moved) else None)

    async def _next(self) -> bytes | None:
        self._is_receiving = True
        try:
            async with asyncio.timeout(HELLO_S if self._worker is None else None):
                return await self._receive()
        except TimeoutError:
            raise Unavailable("no hello came in time; dial again") from None
        finally:
            self._is_receiving = False

    async def _act(self, frame: WorkerFrame) -> None:
        if self._worker is None:
            await self._greet(frame.get("hello", []))
        if self._worker is None:
            return
        for heartbeat in frame.get("heartbeat", []):
            await self._links.heartbeat(self._worker, heartbeat)
        self._links.report(self._worker, frame)

    async def _greet(self, hellos: list[Hello]) -> None:
        if len(hellos) != 1:
            self.end(BAD_FRAME)
            return
        self._worker = await self._links.opened(self._actor, hellos[0], self)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self._send(self._next_frame())
            if self._is_closed:
                return

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
