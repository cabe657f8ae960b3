"""Lines that attempts write: each is stored once, in order, and said to be only when it is."""

import pytest

from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(cloud):
    """Return a worker that executes an attempt of a job, and both."""
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    return worker, job.job, await worker.take()


async def lines_of(cloud, job):
    page = await cloud.services.jobs.logs(cloud.actor, job, -1, 1_000)
    return [line.line for line in page.lines]


async def taken(worker):
    return (await worker.next("logs_taken")).upto


@guarantee("G5.8", "log_loss_is_visible")
async def test_lines_that_are_said_again_are_stored_once_and_taken_again(cloud, running):
    worker, job, attempt = running
    worker.log(attempt, "one", "two")
    first = await taken(worker)
    worker.log(attempt, "two", "three", first=1)
    second = await taken(worker)
    worker.log(attempt, "one", "two", first=0)

    assert (first, second, await taken(worker)) == (2, 3, 3)
    assert await lines_of(cloud, job) == ["one", "two", "three"]


@guarantee("G5.8", "log_loss_is_visible")
async def test_a_server_that_was_killed_knows_which_lines_it_has(cloud, running, restart):
    worker, job, attempt = running
    worker.log(attempt, "one", "two")
    await taken(worker)
    await restart()
    await worker.connect(attempt)
    worker.log(attempt, "two", "three", first=1)

    assert await taken(worker) == 3
    assert await lines_of(cloud, job) == ["one", "two", "three"]


@guarantee("G5.8", "log_loss_is_visible")
async def test_lines_that_never_came_are_counted_in_the_stream(cloud, running):
    worker, job, attempt = running
    worker.log(attempt, "one")
    await taken(worker)
    worker.log(attempt, "five", first=4)
    await taken(worker)

    assert await lines_of(cloud, job) == ["one", "3 lines of output were lost on their way from the worker", "five"]


async def test_the_lines_of_the_next_attempt_begin_again(cloud, running, restart):
    worker, job, attempt = running
    worker.log(attempt, "one", "two")
    await taken(worker)
    await cloud.inner.links.declare_dead("scripted", "its process ended")
    await cloud.advance(10)
    other = await ScriptedWorker(cloud).connect()
    second = await other.take()
    await cloud.settle()
    await restart()
    await other.connect(second)
    other.log(second, "again", first=0)

    assert await taken(other) == 1
    assert await lines_of(cloud, job) == ["one", "two", "again"]
