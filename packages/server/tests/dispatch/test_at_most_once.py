"""A function that may run at most once: whatever is lost, no job of it is ever sent a second time (G2.2)."""

import random
from collections import Counter

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Draining, Finished, Started
from apothic.wire.values import RemoteError
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Fenced
from apothic_server.domain.jobs import JobStatus
from apothic_server.services.links import GRACE_S
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

ONCE = FunctionSpec(
    "work", qualname="work", at_most_once=True, memory_mb=32, max_containers=10_000, max_pending_tasks=1_000_000
)
JOBS = 2_000


async def test_a_lost_worker_ends_the_job(cloud):
    await cloud.deploy("shop", ONCE)
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    await worker.take()

    await cloud.advance(GRACE_S + 1)
    other = await ScriptedWorker(cloud, name="other").connect()
    outcome = await ended(job)

    assert (outcome.status, outcome.attempt) == (JobStatus.FAILED, 1)
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    assert [name for name, _ in other.received if name == "assign"] == []


async def test_a_blocking_call_is_sent_only_after_its_grant_is_on_disk(cloud):
    await cloud.deploy("shop", ONCE)
    worker = await ScriptedWorker(cloud).connect()

    call = await cloud.spawn(blocking=True)
    sent_at_once = [name for name, _ in worker.received if name == "assign"]
    attempt = await worker.next("assign")
    status = await cloud.status(call.job)
    worker.report({"started": [Started(attempt.job, attempt.fence)]})
    worker.succeed(attempt)

    assert sent_at_once == []
    assert status == "starting"
    assert (await ended(call)).status is JobStatus.SUCCEEDED


@guarantee("G2.2", "at_most_once_no_second_grant")
@pytest.mark.parametrize("seed", range(4))
async def test_no_job_is_sent_twice_however_workers_and_servers_are_lost(cloud, postgres, tmp_path, seed):
    await cloud.deploy("shop", ONCE)
    disaster = _Disaster(cloud, postgres, tmp_path, random.Random(seed))
    try:
        while len(disaster.jobs) < JOBS // 4:
            await disaster.go_on()
        await disaster.end_all()
    finally:
        await disaster.stop()

    assert len(disaster.sent) > JOBS // 8
    assert set(disaster.sent.values()) == {1}
    assert set(disaster.ends) == {"succeeded", "failed"}


class _Disaster:
    """Calls one function while workers and servers come and go; counts how often each job was sent."""

    def __init__(self, cloud, postgres, folder, chance):
        self._cloud = cloud
        self._postgres = postgres
        self._folder = folder
        self._chance = chance
        self._clouds = []
        self._workers = []
        self._names = 0
        self.jobs = []
        self.sent = Counter()
        self.ends = Counter()

    async def go_on(self):
        if not self._workers or (len(self._workers) < 3 and self._chance.random() < 0.5):
            await self._new_worker()
        for _ in range(self._chance.randrange(1, 12)):
            self.jobs.append(await self._cloud.spawn(blocking=self._chance.random() < 0.5))
        await self._cloud.settle()
        for worker, held in self._workers:
            self._receive(worker, held)
            self._report(worker, held)
        misfortunes = (
            self._die, self._vanish, self._reconnect, self._forget, self._drain, self._restart, self._take_over
        )  # fmt: skip
        if self._chance.random() < 0.6:
            await self._chance.choice(misfortunes)()
        await self._cloud.step()

    async def end_all(self):
        while self._cloud.inner.board.jobs or await self._unfinished():
            if not self._workers:
                await self._new_worker()
            await self._cloud.settle()
            for worker, held in self._workers:
                self._receive(worker, held)
                for attempt in held:
                    worker.report({"started": [Started(attempt.job, attempt.fence)]})
                    worker.succeed(attempt)
                held.clear()
                await worker.heartbeat()
            await self._cloud.advance(GRACE_S / 3)
        async with self._cloud.inner.database.system_unit() as unit:
            for row in await unit.fetch("SELECT status, attempt, error ->> 'code' AS code FROM jobs"):
                assert row["attempt"] == 1
                assert row["status"] == "succeeded" or row["code"] in ("worker_lost", "exception")
                self.ends[row["status"]] += 1

    async def stop(self):
        for cloud in self._clouds:
            await cloud.stop()

    async def _unfinished(self):
        async with self._cloud.inner.database.system_unit() as unit:
            return await unit.fetchval("SELECT count(*) FROM jobs WHERE finished_at IS NULL")

    async def _new_worker(self):
        self._names += 1
        worker = ScriptedWorker(self._cloud, name=f"worker-{self._names}", cpus=8)
        self._workers.append((await worker.connect(), []))

    def _receive(self, worker, held):
        while worker.received:
            kind, item = worker.received.popleft()
            if kind == "assign":
                self.sent[item.job] += 1
                held.append(item)
            elif kind == "cancel":
                held[:] = [attempt for attempt in held if (attempt.job, attempt.fence) != (item.job, item.fence)]

    def _report(self, worker, held):
        """Start and end some of the attempts that a worker holds; leave others as they are."""
        for attempt in list(held):
            fate = self._chance.random()
            if fate < 0.5:
                worker.report({"started": [Started(attempt.job, attempt.fence)]})
            if fate < 0.3:
                worker.succeed(attempt)
            elif fate < 0.35:
                worker.fail(attempt)
            elif fate < 0.4:
                self._lose(worker, attempt)
            if fate < 0.4:
                held.remove(attempt)

    def _lose(self, worker, attempt):
        error = RemoteError("apothic.WorkerLost", "the runner was ended", code="worker_lost")
        worker.report({"finished": [Finished(attempt.job, attempt.fence, "lost", None, error)]})

    def _one(self):
        return self._workers.pop(self._chance.randrange(len(self._workers)))

    async def _die(self):
        worker, _ = self._one()
        await self._cloud.inner.links.declare_dead(worker.name, "its process ended")

    async def _vanish(self):
        worker, _ = self._one()
        worker.disconnect()
        for other, held in self._workers:
            await other.heartbeat(*held)
        self._cloud.live(GRACE_S / 2)
        for other, held in self._workers:
            await other.heartbeat(*held)
        self._cloud.live(GRACE_S / 2 + 1)

    async def _reconnect(self):
        worker, held = self._one()
        worker.disconnect()
        await self._dial(worker, held)

    async def _forget(self):
        """Reconnect without what was sent, as if the frames had been lost on their way."""
        worker, held = self._one()
        worker.disconnect()
        await self._dial(worker, held[: len(held) // 2])

    async def _drain(self):
        worker, held = self._one()
        worker.report({"draining": [Draining(15.0)]})
        for attempt in held:
            self._lose(worker, attempt)
        worker.disconnect()

    async def _restart(self):
        await self._cloud.inner.stop()
        await self._next_cloud()

    async def _take_over(self):
        """Another process takes the role from a server that still believes that it dispatches."""
        old = self._cloud.inner
        async with old.database.system_unit() as unit:
            await unit.execute("UPDATE dispatcher SET term = term + 1, holder = 'gone', expires_at = 'epoch'")
        self.jobs.append(await self._cloud.spawn(blocking=True))
        await self._cloud.settle()
        for worker, held in self._workers:
            self._receive(worker, held)
        await self._next_cloud()
        await old.stop()

    async def _next_cloud(self):
        sources = Sources(clock=self._cloud.clock, random=lambda: 0.0)
        following = Cloud(self._postgres, self._folder, url="http://next.test", sources=sources)
        self._clouds.append(following)
        await following.start(run_loops=False)
        self._cloud.inner = following
        workers, self._workers = self._workers, []
        for worker, held in workers:
            await self._dial(worker, held)

    async def _dial(self, worker, held):
        try:
            await worker.connect(*held)
        except Fenced:
            return
        self._workers.append((worker, held))
