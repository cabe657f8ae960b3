"""Watchers of one stream share what one of them reads, and none waits for one that is gone."""

import asyncio
from contextlib import suppress

import pytest

from apothic.wire.ids import OrgId
from apothic.wire.limits import LOG_PAGE_LINES_MAX
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.domain.views import Batch
from apothic_server.services.alarm import Alarm
from apothic_server.services.tails import Tail
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
FAR_S = 3_600.0
"""A wait that only ends early."""

WATCHERS = 250


@pytest.fixture
async def running(cloud):
    """A job that runs: its worker, its attempt, and what opens watches of it and where they are."""
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    found = Running(cloud, worker, attempt, StreamRef(StreamKind.JOB, job.job))
    await found.stored("job.running", 1)
    return found


class Running:
    def __init__(self, cloud, worker, attempt, stream):
        self.cloud, self.worker, self.attempt, self.stream = cloud, worker, attempt, stream
        self.streams = cloud.services.streams
        self.lines = 0

    async def watchers(self, count):
        """Open watches that have read everything and wait for more; returns them and what they will read."""
        found = []
        for _ in range(count):
            watch = await self.streams.watch(self.cloud.actor, self.stream)
            newest = (await watch.next(-1, timeout_s=0.0)).last_index
            self.cloud.clock.advance(1.0)
            found.append((watch, self.next(watch, newest)))
        await self.all_wait()
        return found

    def next(self, watch, after):
        return asyncio.ensure_future(watch.next(after, timeout_s=FAR_S))

    async def all_wait(self):
        """Let everybody go on until all wait for something outside of this process."""
        await self.cloud.settle()
        for _ in range(20):
            await asyncio.sleep(0)

    async def log(self, *lines):
        """Write lines; returns when they are in the store."""
        self.worker.log(self.attempt, *lines)
        self.lines += len(lines)
        await self.stored("job.log", self.lines)

    async def stored(self, wanted, count):
        async with asyncio.timeout(30):
            while [kind for _, kind in await self.cloud.events(self.stream.key)].count(wanted) < count:
                await self.cloud.settle()


def lines_of(batch):
    return [event.data["line"] for event in batch.events if event.kind == "job.log"]


async def test_one_reads_for_all_and_they_share_the_batch(running):
    found = await running.watchers(WATCHERS)

    await running.log("news")
    async with asyncio.timeout(10):
        batches = await asyncio.gather(*(task for _, task in found))

    assert [lines_of(batch) for batch in batches] == [["news"]] * WATCHERS
    assert len({id(batch) for batch in batches}) <= 2  # what was read, and what the others find


@pytest.mark.parametrize("how", ["cancelled", "woken"])
async def test_one_that_is_called_and_leaves_hands_the_reading_on(running, how):
    (first, leaving), (_, staying) = await running.watchers(2)

    running.streams.hint(running.stream.key)  # calls the first
    if how == "cancelled":
        leaving.cancel()
    else:
        first.wake()
    await asyncio.gather(leaving, return_exceptions=True)
    await running.log("news")

    async with asyncio.timeout(10):
        assert lines_of(await staying) == ["news"]


async def test_one_that_is_called_and_leaves_before_it_reads_calls_the_next_one():
    tail = Tail(OrgId("org"), StreamRef(StreamKind.JOB, "job"), reread_s=3_600)
    with tail.reading(-1):
        tail.extend(-1, Batch((), 4, is_final=False))
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
    waiting = [asyncio.ensure_future(tail.wait(future)) for future in futures]
    await asyncio.sleep(0)

    tail.wake()
    called = [future.done() for future in futures]
    waiting[called.index(True)].cancel()
    await asyncio.wait(waiting, return_when=asyncio.ALL_COMPLETED, timeout=10)

    assert sorted(called) == [False, True]
    assert all(future.done() for future in futures)
    tail.close()


async def test_when_a_reading_fails_another_one_that_waits_is_called():
    tail = Tail(OrgId("org"), StreamRef(StreamKind.JOB, "job"))
    with tail.reading(-1):
        tail.extend(-1, Batch((), 4, is_final=False))
    tail.wake()

    with suppress(OSError), tail.reading(4):
        waiting = asyncio.ensure_future(tail.wait(asyncio.get_running_loop().create_future()))
        await asyncio.sleep(0)
        assert not tail.has_unread
        raise OSError

    async with asyncio.timeout(10):
        await waiting
    assert tail.has_unread
    tail.close()


async def test_one_beyond_the_front_takes_the_tail_along_and_nobody_misses_anything(running):
    (_, behind), *_ = await running.watchers(1)
    running.cloud.inner.board.hints.changed = lambda _: None
    await running.log("first")
    ahead = await running.streams.watch(running.cloud.actor, running.stream)
    newest = (await running.cloud.events(running.stream.key))[-1][0]
    assert (await ahead.next(newest, timeout_s=0.0)).events == ()
    beyond = running.next(ahead, newest)

    await running.log("second")
    running.streams.hint(running.stream.key)

    async with asyncio.timeout(10):
        assert lines_of(await beyond) == ["second"]
        assert lines_of(await behind)[0] == "first"


async def test_more_than_a_page_comes_with_one_wake_up(running):
    [(watch, task)] = await running.watchers(1)
    running.cloud.inner.board.hints.changed = lambda _: None
    wanted = [str(number) for number in range(1_200)]
    for start in range(0, len(wanted), LOG_PAGE_LINES_MAX):
        await running.log(*wanted[start : start + LOG_PAGE_LINES_MAX])

    running.streams.hint(running.stream.key)
    got = []
    async with asyncio.timeout(10):
        while len(got) < len(wanted):
            batch = await task
            got += lines_of(batch)
            task = running.next(watch, batch.last_index)
    task.cancel()

    assert got == wanted


@guarantee("G5.6", "lost_notify_still_delivers")
async def test_those_who_wait_get_what_nobody_told_them_of_with_the_next_reading(running):
    running.streams.reread_s = 0.05
    running.cloud.inner.board.hints.changed = lambda _: None
    found = await running.watchers(3)

    await running.log("untold")

    async with asyncio.timeout(10):
        batches = await asyncio.gather(*(task for _, task in found))
    assert [lines_of(batch) for batch in batches] == [["untold"]] * 3


async def test_an_alarm_rings_once_at_the_moment_that_was_set_last():
    loop, rung = asyncio.get_running_loop(), asyncio.Queue()
    alarm = Alarm(lambda: rung.put_nowait(loop.time()))
    began = loop.time()
    alarm.set(began + FAR_S)
    alarm.set(began + 0.01)
    alarm.set(began + 0.05)

    async with asyncio.timeout(10):
        assert await rung.get() >= began + 0.05
    alarm.set(loop.time())
    alarm.stop()
    alarm.set(loop.time() + 0.01)
    async with asyncio.timeout(10):
        await rung.get()
    alarm.set(loop.time())
    alarm.close()
    await asyncio.wait_for(loop.run_in_executor(None, int), 10)

    assert rung.empty()
