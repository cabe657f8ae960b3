"""A thousand watchers whose server restarts: the SDK's own schedule against the face, on one virtual clock."""

import heapq
import socket
from contextlib import AsyncExitStack
from random import Random

import pytest

from apothic._core import Core
from apothic._events import EventReader
from apothic._position import Position
from apothic._steps import Dial, Line, Pause, Receive, Send
from apothic.config import Endpoint
from apothic_server.domain.errors import TooMany
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.services.streams import FEW_WATCHERS
from apothic_server.services.turns import AT_ONCE, PER_S
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
WATCHERS = 1_000
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


class Watcher:
    """One SDK reader whose connection is lost once; its effects are performed against the face.

    Attributes:
        asked: How often it asked after the loss.
        earliest: When the server lets it ask again.
        exchange: Its stream, once it is back.
    """

    def __init__(self, cloud, job, last_index, random):
        core = Core(Endpoint("http://cloud.test", "http", "cloud.test", 80), clock=cloud.clock.monotonic, random=random)
        self.asked = 0
        self.earliest = 0.0
        self.exchange = None
        self._steps = EventReader(core, f"jobs:{job}", Position(last_index)).more()
        self._clock = cloud.clock
        self._is_lost = False
        self._target = ""

    async def go(self, client, stack):
        """Go on until it pauses; returns the seconds, or None when it is back."""
        value = None
        while True:
            match self._steps.send(value):
                case Dial():
                    value = Line(socket.socket())
                case Send(_, data):
                    self._target = data.decode().split(" ")[1]
                    value = None
                case Receive() if not self._is_lost:
                    self._is_lost, value = True, b""
                case Receive():
                    value = await self._ask(client, stack)
                    if value is None:
                        return None
                case Pause(seconds):
                    return seconds

    async def _ask(self, client, stack):
        """Return the bytes of a refusal, or None when the stream is open."""
        self.asked += 1
        assert self._clock.monotonic() >= self.earliest
        async with AsyncExitStack() as own:
            exchange = await own.enter_async_context(client.open("GET", self._target, headers=SSE))
            if await exchange.start() == 200:
                self.exchange = exchange
                stack.push_async_exit(own.pop_all())
                return None
            answer = await exchange.answer()
        assert (answer.status, answer.json["code"]) == (429, "too_many_new_watchers")
        self.earliest = self._clock.monotonic() + int(answer.headers["retry-after"])
        lines = [f"{name}: {text}" for name, text in (*answer.headers.items(), ("connection", "close"))]
        return "\r\n".join(["HTTP/1.1 429 Too Many Requests", *lines, "", ""]).encode() + answer.body


@guarantee("G15.3", "no_reconnect_storm")
async def test_a_thousand_watchers_come_back_in_turn_and_miss_nothing(cloud, client):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    await cloud.settle()
    seen = (await cloud.events(job.job))[-1][0]
    random = Random(15).random
    watchers = [Watcher(cloud, job.job, seen, random) for _ in range(WATCHERS)]
    began = cloud.clock.monotonic()
    due = [(began, number) for number in range(WATCHERS)]
    back = []

    async with AsyncExitStack() as stack:
        while due:
            at, number = heapq.heappop(due)
            cloud.clock.advance(max(0.0, at - cloud.clock.monotonic()))
            pause_s = await watchers[number].go(client, stack)
            if pause_s is None:
                back.append(cloud.clock.monotonic() - began)
            else:
                heapq.heappush(due, (cloud.clock.monotonic() + pause_s, number))
        worker.succeed(attempt)
        await ended(job)
        missed = [watcher for watcher in watchers if not await hears_the_end(watcher.exchange)]

    assert len(back) == WATCHERS
    assert missed == []
    assert back[-1] - back[0] >= 10
    assert back[-1] <= 20
    at_once = FEW_WATCHERS + AT_ONCE
    early = [number for number in range(at_once, WATCHERS) if back[number] < (number - at_once) / PER_S]
    assert early == []
    assert sum(watcher.asked for watcher in watchers) <= 3 * WATCHERS
    assert cloud.services.streams.watchers == 0


async def hears_the_end(exchange):
    while (piece := await exchange.piece()) is not None:
        if b"event: job.end\n" in piece:
            return True
    return False


async def test_a_hundred_watchers_wait_for_nobody_and_give_their_turns_back(cloud):
    await cloud.deploy()
    stream = StreamRef(StreamKind.JOB, (await cloud.spawn()).job)

    for _ in range(20):
        watches = [await cloud.services.streams.watch(cloud.actor, stream) for _ in range(100)]
        for watch in watches:
            watch.close()

    assert cloud.services.streams.watchers == 0


async def test_few_watchers_of_another_org_wait_for_nobody(cloud):
    await cloud.deploy()
    stream = StreamRef(StreamKind.JOB, (await cloud.spawn()).job)
    watches = [await cloud.services.streams.watch(cloud.actor, stream) for _ in range(FEW_WATCHERS + AT_ONCE)]

    with pytest.raises(TooMany) as refused:
        await cloud.services.streams.watch(cloud.actor, stream)
    watches += [await cloud.services.streams.watch(cloud.other_actor, stream) for _ in range(FEW_WATCHERS)]

    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_new_watchers", 1)
    assert cloud.services.streams.watchers == len(watches)
