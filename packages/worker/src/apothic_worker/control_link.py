"""Keeps the worker linked to its control plane: dial, beat, resume, acknowledge. Drives `LinkState`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from apothic.wire.images import PrepareImage, TidyImages
from apothic.wire.link import (
    Assign,
    Cancel,
    HeartbeatAnswer,
    ItemsTaken,
    Lent,
    Ping,
    Refused,
    RunnerRef,
    StartRunner,
    StopRunner,
    TakeBack,
    Welcome,
)
from apothic_worker import journal
from apothic_worker.addresses import Addresses, is_http
from apothic_worker.lease import LOOK_S
from apothic_worker.link_codec import LinkBroken, ServerItem
from apothic_worker.link_socket import OPEN_TIMEOUT_S, LinkRefused, LinkSocket, LinkUnavailable
from apothic_worker.link_state import Drop, Haste, LinkState
from apothic_worker.relay import ControlPlane

STARTED_DELAY_S = 0.005
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
BACKOFF_SEVERAL_MAX_S = 2.0
"""With several servers one of them dispatches soon."""

BACKOFF_LOCAL_MAX_S = 1.0
"""A server on the same host is looked for more often: it costs nobody else anything."""

AUTH_CODES = ("unauthenticated", "forbidden")
RETRY_CODES = ("unavailable", "moved")


class Obeys(Protocol):
    """Who carries out what the server says."""

    @property
    def runners(self) -> list[RunnerRef]:
        """Runners alive or starting."""
        ...

    @property
    def echo(self) -> int:
        """Number of the newest ping that came here; 0 before the first of this link."""
        ...

    def linked(self) -> None:
        """A server said welcome: no ping of this link came yet, and no runner's processors are lent."""
        ...

    def ping(self, number: int) -> None:
        """Be asked for a sign of life."""
        ...

    def lent(self, item: Lent) -> None:
        """Let what a runner computes come last, or as any other again."""
        ...

    def start_runner(self, item: StartRunner) -> None:
        """Start a runner."""
        ...

    def prepare_image(self, item: PrepareImage) -> None:
        """Make an environment ready."""
        ...

    def tidy_images(self, item: TidyImages) -> None:
        """Remove environments that nobody needs."""
        ...

    def stop_runner(self, runner: str) -> None:
        """End an idle runner."""
        ...

    def assign(self, item: Assign) -> None:
        """Execute an attempt."""
        ...

    def cancel(self, item: Cancel) -> None:
        """Stop an attempt and report it."""
        ...

    def take_back(self, item: TakeBack) -> None:
        """Let a chunk end with the item under way."""
        ...

    def items_taken(self, item: ItemsTaken) -> None:
        """Let a generator go on."""
        ...

    def drop(self, item: Drop) -> None:
        """Stop attempts and runners and report nothing."""
        ...

    def guard(self, age_s: float, session: Welcome) -> float:
        """Stop user code whose lease, renewed `age_s` ago, runs out; return when to look again, in seconds."""
        ...


def boot_ms() -> int:
    """Milliseconds since boot, suspended time included."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


@dataclass(frozen=True)
class Dial:
    """Where and how to link.

    Attributes:
        where: Returns address and token, asked before each try; raises `LinkUnavailable` when they are not known now.
        is_local: A server on this host started the worker.
        is_leased: Another server may give its work away, so it ends with the lease all the same.
        more: Further addresses of the control plane.
        follows: Says whether an address that the control plane told may be dialled.
    """

    where: Callable[[], tuple[str, str]]
    is_local: bool
    is_leased: bool = False
    more: tuple[str, ...] = ()
    follows: Callable[[str], bool] = is_http


class ControlLink:
    """The link of one worker process.

    Args:
        dial: Address, token, and whether the server is on this host.
        make_state: Builds the protocol state around the wake-up function.
        obeys: Carries out orders.
        jitter: Returns a random number from 0 to 1.
    """

    def __init__(
        self,
        dial: Dial,
        make_state: Callable[[Callable[[Haste], None]], LinkState],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._dial = dial
        self._jitter = jitter
        self._socket: LinkSocket | None = None
        self._flush_timer: asyncio.Handle | None = None
        self._beat_timer: asyncio.Handle | None = None
        self._fence_timer: asyncio.Handle | None = None
        self._is_flush_soon = self._is_closing = False
        self._welcomed: asyncio.Event = asyncio.Event()
        self._settled: asyncio.Event = asyncio.Event()
        self._refused: Refused | None = None
        self._usual = self._reason = ""
        self._bound_s = BACKOFF_FIRST_S
        self.addresses = Addresses(dial.more, dial.follows)
        self._obeys: Obeys | None = None
        self._loop = asyncio.get_running_loop()
        self._away_since: float | None = self._loop.time()
        self.state = make_state(self._wake)

    async def run(self, obeys: Obeys) -> None:
        """Stay linked until closed or cancelled.

        Raises:
            LinkRefused: The server does not want this worker; trying again is of no use.
        """
        self._obeys = obeys
        try:
            while True:
                reason = await self._try(obeys)
                if self._is_closing:
                    return
                self._after(reason)
                delay_s = self._jitter() * self._bound_s
                self._bound_s = min(self._bound_s * 2, self._bound_max_s())
                if reason != self._reason:
                    self._reason = reason
                    journal.warning("link.away", reason=reason, retry_s=round(delay_s, 3))
                await asyncio.sleep(delay_s)
        finally:
            self._cancel_timers()
            if self._fence_timer:
                self._fence_timer.cancel()

    @property
    def is_away(self) -> bool:
        """Whether there is no link."""
        return self._away_since is not None

    @property
    def away_s(self) -> float:
        """Seconds since the last link; 0 while there is one."""
        return 0.0 if self._away_since is None else self._loop.time() - self._away_since

    def control_plane(self) -> ControlPlane | None:
        """Return the server that greeted this worker last, and who it is there; None before the first welcome."""
        session, url = self.state.session, self.addresses.linked
        return (
            None if session is None or url is None else ControlPlane(url, self.state.incarnation, session.attempt_key)
        )

    async def settle(self, timeout_s: float) -> None:
        """Wait until every end is on disk at the server, but no longer than this."""
        self._settled.clear()
        if self.state.has_unsettled and timeout_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._settled.wait()

    async def close(self, code: int) -> None:
        """Send what waits, then close the connection."""
        self._is_closing = True
        self._flush()
        if self._socket is not None:
            await self._socket.close(code)

    def _bound_max_s(self) -> float:
        if self._dial.is_local:
            return BACKOFF_LOCAL_MAX_S
        return BACKOFF_MAX_S if len(self.addresses.known(self._usual)) == 1 else BACKOFF_SEVERAL_MAX_S

    async def _try(self, obeys: Obeys) -> str:
        """Be linked once; return why that ended."""
        try:
            self._usual, token = self._dial.where()
            return await self._once(self.addresses.dial(self._usual), token, obeys)
        except LinkUnavailable as error:
            return str(error)
        except LinkRefused as error:
            # While our server is away, any other program may listen at its address.
            if self._dial.is_local and self.state.session is not None and error.code in AUTH_CODES:
                return str(error)
            raise

    async def _once(self, url: str, token: str, obeys: Obeys) -> str:
        self._welcomed.clear()
        self._refused = None
        socket = LinkSocket(url, token, self._message)
        await socket.open()
        self._socket = socket
        try:
            self.state.open(boot_ms(), obeys.runners)
            welcome = asyncio.ensure_future(self._welcomed.wait())
            await asyncio.wait([welcome, socket.closed], timeout=OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            welcome.cancel()
            if not self._welcomed.is_set() and not socket.closed.done():
                socket.fail(4002, "no welcome")
            return await asyncio.shield(socket.closed)
        finally:
            socket.abort()
            self._socket = None
            if self._away_since is None:
                self._away_since = self._loop.time()
            self._cancel_timers()
            self.state.close()

    def _after(self, reason: str) -> None:
        """Choose the address to dial next."""
        refused, self._refused = self._refused, None
        if refused is None:
            if not self._welcomed.is_set():
                self.addresses.failed()
            return
        if refused.code not in RETRY_CODES:
            raise LinkRefused(refused.code, refused.detail or reason)
        has_moved = refused.code == "moved" and refused.url is not None and self.addresses.moved(refused.url)
        if not has_moved and not self._welcomed.is_set():
            self.addresses.failed()

    # --- incoming

    def _message(self, data: bytes) -> None:
        assert self._obeys is not None
        try:
            for item in self.state.receive(data):
                self._act(item, self._obeys)
            if not self.state.has_unsettled:
                self._settled.set()
        except LinkBroken as error:
            journal.error("link.broken", reason=str(error))
            if self._socket is not None:
                self._socket.fail(1002, "no link message")

    def _act(self, item: ServerItem | Drop, obeys: Obeys) -> None:
        match item:
            case Assign():
                obeys.assign(item)
            case Cancel():
                obeys.cancel(item)
            case TakeBack():
                obeys.take_back(item)
            case ItemsTaken():
                obeys.items_taken(item)
            case StartRunner():
                obeys.start_runner(item)
            case PrepareImage():
                obeys.prepare_image(item)
            case TidyImages():
                obeys.tidy_images(item)
            case StopRunner():
                obeys.stop_runner(item.runner)
            case Lent():
                obeys.lent(item)
            case Ping():
                obeys.ping(item.number)
            case Drop():
                obeys.drop(item)
                self._renewed()
            case Refused():
                self._refused = item
            case Welcome():
                journal.info("link.open", worker=item.worker, term=item.term)
                self._bound_s = BACKOFF_FIRST_S
                self._away_since, self._reason = None, ""
                self._welcomed.set()
                self._told(item.servers)
                self.addresses.welcomed(self._usual)
                obeys.linked()
                self._beat_later(item.heartbeat_s)
            case HeartbeatAnswer():
                self._told(item.servers)
            case _:
                pass

    def _told(self, servers: list[str]) -> None:
        # A worker that keeps its work for the one server on its host follows no other.
        if not self._dial.is_local or self._dial.is_leased:
            self.addresses.told(servers)

    # --- outgoing

    def _wake(self, haste: Haste) -> None:
        if self._socket is None:
            return
        if haste is Haste.NOW:
            self._flush()
        elif haste is Haste.TICK and not self._is_flush_soon:
            if self._flush_timer:
                self._flush_timer.cancel()
            self._is_flush_soon = True
            self._flush_timer = self._loop.call_soon(self._flush)
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(STARTED_DELAY_S, self._flush)

    def _flush(self) -> None:
        if self._flush_timer:
            self._flush_timer.cancel()
            self._flush_timer = None
        self._is_flush_soon = False
        if self._socket is not None:
            for message in self.state.take():
                self._socket.send(message)

    # --- heartbeat and lease

    def _beat_later(self, heartbeat_s: float) -> None:
        self._beat_timer = self._loop.call_later(heartbeat_s, self._beat, heartbeat_s)

    def _beat(self, heartbeat_s: float) -> None:
        self._renewed()
        if self.state.heartbeat(boot_ms(), self._obeys.echo if self._obeys is not None else 0):
            self._beat_later(heartbeat_s)
        elif self._socket is not None:
            self._socket.fail(4002, "a heartbeat was not answered")

    def _renewed(self) -> None:
        """Plan the next look at the lease; a worker beside the only server keeps its work."""
        if not self._dial.is_local or self._dial.is_leased:
            self._check_lease()

    def _check_lease(self) -> None:
        session, renewed = self.state.session, self.state.renewed_at_ms
        if self._fence_timer:
            self._fence_timer.cancel()
            self._fence_timer = None
        if session is None or renewed is None or self._obeys is None:
            return
        delay_s = min(self._obeys.guard((boot_ms() - renewed) / 1000, session), LOOK_S)
        self._fence_timer = self._loop.call_later(delay_s, self._check_lease)

    def _cancel_timers(self) -> None:
        for timer in (self._flush_timer, self._beat_timer):
            if timer:
                timer.cancel()
        self._flush_timer = self._beat_timer = None
        self._is_flush_soon = False
