"""Cancels against everything else that may happen to a job at the same moment (G4.1)."""

import asyncio
import os
import random

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import Finished, Started
from apothic.wire.values import Value
from apothic_server.domain.jobs import FINAL, JobStatus
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

JOBS = 50
RACES = 1_000
ROUNDS = (10_000 if os.environ.get("APOTHIC_TEST_PROFILE") == "full" else RACES) // JOBS
SEED = 41
TURNS = 60
"""Longest pause before a step, in turns of the event loop; a commit takes about so many."""


@guarantee("G4.1", "cancel_linearizable", count=RACES)
async def test_a_cancel_that_was_accepted_is_never_followed_by_success(cloud):
    """Each job is granted, started, ended and cancelled, each step after its own random number of turns."""
    dice = random.Random(SEED)
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=JOBS // 2, max_pending_tasks=JOBS))
    scripted = await ScriptedWorker(cloud, cpus=JOBS, memory_mb=JOBS * 1024).connect()
    worker = RacingWorker(scripted, dice)
    seen: set[tuple[JobStatus, JobStatus]] = set()
    for _ in range(ROUNDS):
        seen |= await _race(cloud, worker, dice)

    # The races were races: cancels met jobs that waited, that ran, and that had ended.
    assert (JobStatus.CANCELLED, JobStatus.CANCELLED) in seen
    assert (JobStatus.CANCELLING, JobStatus.CANCELLED) in seen
    assert (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED) in seen


class RacingWorker:
    """Executes attempts as a worker does: each ends once, by itself or because it was cancelled before."""

    def __init__(self, scripted, dice):
        self._scripted = scripted
        self._dice = dice
        self._running = {}

    async def obey(self):
        """Act on what the server says until cancelled."""
        async with asyncio.TaskGroup() as attempts:
            while True:
                name, item = await self._scripted.next_of("assign", "cancel")
                if name == "assign":
                    key = (item.job, item.fence)
                    self._running[key] = attempts.create_task(self._execute(key))
                elif task := self._running.pop((item.job, item.fence), None):
                    task.cancel()
                    self._scripted.report({"finished": [Finished(item.job, item.fence, "cancelled")]})

    async def _execute(self, key):
        await turns(self._dice)
        self._scripted.report({"started": [Started(*key)]})
        await turns(self._dice)
        self._running.pop(key)
        self._scripted.report({"finished": [Finished(*key, "succeeded", Value("json", b"1"))]})


async def turns(dice):
    """Let the others go first for a while."""
    for _ in range(dice.randrange(TURNS)):
        await asyncio.sleep(0)


async def _race(cloud, worker, dice):
    """Race `JOBS` cancels; return the pairs of what a cancel answered and how its job ended."""
    jobs = [await cloud.spawn(blocking=dice.random() < 0.5) for _ in range(JOBS)]
    obeying = asyncio.create_task(worker.obey())
    answers = await asyncio.gather(*(_cancel(cloud, job.job, dice) for job in jobs))
    outcomes = [await ended(job) for job in jobs]
    obeying.cancel()
    await asyncio.gather(obeying, return_exceptions=True)
    for answer, outcome in zip(answers, outcomes, strict=True):
        expected = answer if answer in FINAL else JobStatus.CANCELLED
        assert outcome.status is expected, f"the cancel answered {answer}"
        assert await cloud.status(outcome.job) == expected.value
    return {(answer, outcome.status) for answer, outcome in zip(answers, outcomes, strict=True)}


async def _cancel(cloud, job, dice):
    for _ in range(dice.randrange(3)):
        await turns(dice)
    return await cloud.services.jobs.cancel(cloud.actor, job)
