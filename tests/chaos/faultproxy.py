"""A way between two processes that can be broken: relays TCP connections and does to them what networks do.

Bytes are never lost in the middle of a connection, as TCP loses none: they arrive late, or the connection ends. When a
disturbance is over, what was held back either arrives after all, or the connections that it met are reset.
"""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

PIECE = 65536
UP, DOWN = "up", "down"


@dataclass(frozen=True)
class Weather:
    """What the way does now.

    Attributes:
        refuses: New connections are reset at once, and those that were open when it began.
        holds: Directions in which nothing arrives: `up` to the server, `down` from it. With both, a new connection is
            accepted and hears nothing.
        delay_s: Every piece arrives so much later, in both directions.
        loses: Share of new connections that end when the first piece of an answer comes back; the open ones all do.
    """

    refuses: bool = False
    holds: frozenset[str] = frozenset()
    delay_s: float = 0.0
    loses: float = 0.0


CALM = Weather()


def weather(kind: str, chance) -> Weather:
    """Return what a fault of this name is; `chance` decides what the name leaves open."""
    if kind == "cut":
        return Weather(refuses=True)
    if kind == "delay":
        return Weather(delay_s=chance.uniform(0.02, 0.3))
    if kind == "lose":
        return Weather(loses=0.5)
    return Weather(holds={"hang": frozenset({UP, DOWN}), "deaf": frozenset({DOWN}), "mute": frozenset({UP})}[kind])


class FaultProxy:
    """One way to the port of a server on this host.

    Args:
        port: Where the server listens.
        chance: Decides which connections lose their answer.

    Attributes:
        port: Where this one listens.
        lost: Answers that were lost after their request had arrived.
    """

    def __init__(self, port, chance):
        self._target = port
        self._chance = chance
        self._weather = CALM
        self._changed = asyncio.Event()
        self._relays = set()
        self._server = None
        self.port = 0
        self.lost = 0

    async def start(self):
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        """Reset everything and listen no more."""
        self._server.close()
        for relay in list(self._relays):
            relay.task.cancel()
        await asyncio.gather(*(relay.task for relay in list(self._relays)), return_exceptions=True)

    @asynccontextmanager
    async def disturbed(self, bad: Weather, *, resets: bool):
        """Have this weather until the block ends; `resets` says whether what it met is reset then."""
        met = set(self._relays)
        for relay in met:
            if bad.refuses:
                relay.reset()
            relay.loses = bad.loses > 0
        self._turn(bad)
        try:
            yield
        finally:
            if resets:
                for relay in met | self._relays:
                    relay.reset()
            self._turn(CALM)

    def _turn(self, now):
        self._weather = now
        before, self._changed = self._changed, asyncio.Event()
        before.set()

    async def _serve(self, reader, writer):
        relay = _Relay(asyncio.current_task(), writer, self._chance.random() < self._weather.loses)
        self._relays.add(relay)
        try:
            if self._weather.refuses:
                relay.reset()
                return
            await self._passes(UP)
            there = await asyncio.open_connection("127.0.0.1", self._target)
            relay.writers.append(there[1])
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pipe(UP, reader, there[1], relay))
                both.create_task(self._pipe(DOWN, there[0], writer, relay))
        except* (OSError, _Lost):
            relay.reset()
        except* asyncio.CancelledError:
            pass  # it was reset: nobody waits for this task
        finally:
            self._relays.discard(relay)
            for one in relay.writers:
                one.close()

    async def _pipe(self, direction, source, sink, relay):
        while data := await source.read(PIECE):
            if self._weather.delay_s:
                await asyncio.sleep(self._weather.delay_s)
            await self._passes(direction)
            if direction == DOWN and relay.loses:
                self.lost += 1
                raise _Lost
            sink.write(data)
            await sink.drain()
        await self._passes(direction)
        with suppress(OSError):
            sink.write_eof()

    async def _passes(self, direction):
        while direction in self._weather.holds:
            await self._changed.wait()


class _Lost(Exception):
    """The answer comes no further."""


class _Relay:
    """One connection: its ends and its task."""

    def __init__(self, task, writer, loses):
        self.task = task
        self.writers = [writer]
        self.loses = loses

    def reset(self):
        """End it as a crashed machine would, with what was on its way thrown away."""
        for writer in self.writers:
            connection = writer.get_extra_info("socket")
            with suppress(OSError, AttributeError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if self.task is not asyncio.current_task():
            self.task.cancel()
