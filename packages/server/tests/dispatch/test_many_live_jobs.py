"""A start with many unfinished jobs: what it asks of the store grows by the page and not by the job."""

import asyncio
import gc
import weakref
from dataclasses import fields

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.jobs import Job
from apothic_server.services.dispatch.live import PLACES_LEFT_MAX
from apothic_server.services.dispatch.recovery import PAGE
from apothic_server.store.connection import connect
from apothic_server.store.recovery import SQL
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

PAGES = 5
SCANS_MAX = 10
"""Looks at the table of jobs that a start takes however few rows there are."""

COPY = """
    INSERT INTO jobs (id, org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        next_index, created_by, created_at)
    SELECT lpad(n::text, 26, '0'), org, app, deployment, function, status, path, run_at, arguments, arguments_encoding,
        next_index, created_by, created_at
    FROM jobs CROSS JOIN generate_series(1, $1) AS n WHERE id = $2
"""
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
LOOKS = """
    SELECT coalesce(idx_scan, 0) + seq_scan AS scans, coalesce(idx_tup_fetch, 0) + seq_tup_read AS rows
    FROM pg_stat_user_tables WHERE relname = 'jobs'
"""


async def looks(connection):
    """Return how often the table of jobs was looked at and how many rows were read, once everybody has left."""
    async with asyncio.timeout(30):
        while await connection.fetchval(OTHERS):
            await connection.execute("SELECT pg_stat_clear_snapshot()")
    return tuple(await connection.fetchrow(LOOKS))


@guarantee("G14.3", "restart_under_10s")
async def test_a_start_reads_each_unfinished_row_once_and_a_page_at_a_time(cloud, postgres, tmp_path):
    await cloud.deploy()
    job = await cloud.spawn()
    await cloud.inner.stop()
    owner = await connect(postgres, name="test", deadline_s=60)
    try:
        await owner.execute(COPY, PAGES * PAGE, job.job)
        await owner.execute("ANALYZE jobs; SELECT pg_stat_force_next_flush()")
        scans_before, rows_before = await looks(owner)
        clock = cloud.clock
        second = Cloud(postgres, tmp_path, url="http://second.test", sources=Sources(clock=clock, random=lambda: 0.0))
        await second.start(run_loops=False)
        adopted, waiting = len(second.board.jobs), sum(1 for _ in second.board.ready)
        await second.stop()
        scans, rows = await looks(owner)
    finally:
        await owner.close()

    assert adopted == waiting == PAGES * PAGE + 1
    assert rows - rows_before <= adopted + SCANS_MAX
    assert scans - scans_before <= PAGES + 1 + SCANS_MAX


@pytest.mark.parametrize("name", ["list_unfinished_jobs", "get_jobs_with_arguments"])
def test_the_statements_that_are_read_by_place_select_a_job_in_the_order_of_its_fields(name):
    columns = SQL[name].partition("SELECT ")[2].partition(" FROM ")[0].replace("\n", " ").split(",")
    named = [column.split()[0] for column in columns]

    assert named[: len(fields(Job))] == [field.name for field in fields(Job)]


async def test_jobs_that_were_cancelled_behind_one_that_waits_are_forgotten_and_the_others_keep_their_order(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=1_000))
    first, *others = [await cloud.spawn() for _ in range(PLACES_LEFT_MAX + 60)]
    kept = {0: first} | {number: others[number] for number in (100, 200)}
    cancelled = [one for one in others if one not in kept.values()]
    places = [weakref.ref(one.outcome) for one in cancelled]
    await asyncio.gather(*[cloud.services.jobs.cancel(cloud.actor, one.job) for one in cancelled])
    del others, cancelled
    await cloud.settle()
    gc.collect()
    alive = sum(place() is not None for place in places)

    worker = await ScriptedWorker(cloud, cpus=1).connect()
    taken = []
    for one in kept.values():
        attempt = await worker.take()
        taken.append(attempt.job)
        worker.succeed(attempt)
        await ended(one)

    assert len(places) > PLACES_LEFT_MAX
    assert alive < len(places) / 4
    assert taken == [one.job for one in kept.values()]
