"""Schedules on a whole control plane: ticks make jobs once, over servers, restarts, clock steps, deploys and pauses."""

import asyncio
import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.schedules import ScheduleSpec
from apothic_server.bootstrap import Cloud, Sources
from apothic_server.domain.errors import Conflict, DiskLow, NotFound
from apothic_server.testing.cloud import ScriptedWorker, start_beside
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[4] / "examples"
MINUTELY = ScheduleSpec("* * * * *", overlap="allow")


def work(schedule, name="work", **options):
    return FunctionSpec(name, qualname=name, schedule=schedule, **options)


async def only(cloud):
    (view,) = await cloud.services.schedules.list_schedules(cloud.actor, app_name=None, after=None, limit=10)
    return view


async def ticks(cloud):
    """Due times of all jobs that ticks made, in the order of the jobs."""
    async with cloud.inner.database.system_unit() as unit:
        rows = await unit.fetch(
            "SELECT tick.due FROM ticks AS tick JOIN jobs AS job ON job.id = tick.job ORDER BY job.id"
        )
    return [row["due"] for row in rows]


async def unknown_jobs(cloud):
    """How many jobs a schedule believes it has made and nobody finds."""
    async with cloud.inner.database.system_unit() as unit:
        return await unit.fetchval(
            "SELECT count(*) FROM schedules AS one, unnest(one.jobs) AS job "
            "WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = job)"
        )


async def skipped(cloud):
    async with cloud.inner.database.system_unit() as unit:
        rows = await unit.fetch(
            "SELECT data ->> 'reason' AS reason, (data ->> 'count')::int AS count FROM events "
            "WHERE kind = 'app.tick_skipped' ORDER BY index"
        )
    return [(row["reason"], row["count"]) for row in rows]


async def look(cloud, seconds=0.0):
    cloud.live(seconds)
    await cloud.inner.schedules.look_at_due()


async def run_all(cloud, worker):
    """Let every job that waits run to its end."""
    await cloud.inner.upkeep.reload()
    attempt = await worker.take()
    worker.succeed(attempt)
    await cloud.settle()
    return attempt


async def test_a_tick_makes_a_job_that_runs_without_arguments_and_shows_what_made_it(cloud):
    await cloud.deploy("shop", work(MINUTELY))
    worker = await ScriptedWorker(cloud).connect()
    await look(cloud, 59)
    before = await ticks(cloud)

    await look(cloud, 1)
    attempt = await run_all(cloud, worker)

    job = await cloud.services.jobs.get(cloud.actor, attempt.job)
    view = await only(cloud)
    assert before == []
    assert attempt.arguments.data == b"[[],{}]"
    assert job.job.status.value == "succeeded"
    assert (job.tick.schedule, job.tick.due) == (view.schedule.id, cloud.clock.now())
    assert [(run.job, run.status) for run in view.runs] == [(attempt.job, "succeeded")]
    assert view.next[:2] == (cloud.clock.now() + timedelta(minutes=1), cloud.clock.now() + timedelta(minutes=2))
    assert len(view.next) == 5


async def test_the_loop_of_the_dispatcher_looks_and_says_when_to_look_again(cloud):
    await cloud.deploy("shop", work(MINUTELY))

    assert await cloud.inner.schedules.step() == 60.0
    await cloud.advance(60)
    assert len(await ticks(cloud)) == 1


@guarantee("G10.1", "tick_unique")
async def test_two_servers_that_look_at_once_and_die_on_the_way_make_each_of_1000_ticks_once(cloud, postgres, tmp_path):
    sources = Sources(clock=cloud.clock, random=lambda: 0.0)
    beside = await start_beside(cloud, Cloud(postgres, tmp_path, url="http://standby.test", sources=sources))
    schedule = ScheduleSpec(period_s=60, overlap="allow")
    specs = [work(schedule, f"work{n}", max_pending_tasks=10_000) for n in range(10)]
    await cloud.deploy("shop", *specs)
    begin = cloud.clock.now()
    try:
        for minute in range(100):
            cloud.clock.advance(60)
            looks = [asyncio.create_task(one.inner.schedules.look_at_due()) for one in (cloud, beside, beside)]
            if minute % 3 == 0:
                for _ in range(minute):
                    await asyncio.sleep(0)
                looks[minute % 2].cancel()
            await asyncio.gather(*looks, return_exceptions=True)
            assert await unknown_jobs(cloud) == 0, "whoever came second wrote what it had decided"
            if minute % 10 == 5:
                cloud.clock.step(-600)
                await cloud.inner.schedules.look_at_due()
                cloud.clock.step(600)
        await cloud.inner.schedules.look_at_due()
    finally:
        await beside.inner.stop()

    found = await ticks(cloud)
    assert len(found) == 1_000
    assert sorted(found) == sorted(10 * [begin + timedelta(minutes=n) for n in range(1, 101)])
    assert await skipped(cloud) == []


@guarantee("G10.1", "tick_unique")
async def test_the_store_refuses_a_second_job_for_a_tick_though_the_row_was_set_back(cloud):
    await cloud.deploy("shop", work(MINUTELY))
    first = (await only(cloud)).schedule
    await look(cloud, 60)
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE schedules SET next_due = $1, fire_at = $1", first.next_due)

    await look(cloud)

    assert await ticks(cloud) == [first.next_due]
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM jobs") == 1


@guarantee("G10.2", "missed_ticks_matrix")
async def test_after_hours_down_the_newest_tick_is_made_up_for_and_the_rest_is_told(cloud):
    await cloud.deploy("shop", work(MINUTELY))

    cloud.clock.advance(3 * 3_600 + 45)
    await look(cloud)

    newest = cloud.clock.now() - timedelta(seconds=45)
    assert await ticks(cloud) == [newest]
    assert await skipped(cloud) == [("too_late", 120), ("missed", 59)]
    assert (await only(cloud)).next[0] == newest + timedelta(minutes=1)


@guarantee("G10.4", "overlap_policies")
@pytest.mark.parametrize(
    ("overlap", "jobs", "cancelled", "told"),
    [
        ("skip", 1, 0, [("overlap", 1), ("overlap", 1)]),
        ("queue_one", 1, 0, [("one_waits", 1)]),
        ("allow", 3, 0, []),
        ("cancel_previous", 3, 2, []),
    ],
)
async def test_overlap(cloud, overlap, jobs, cancelled, told):
    await cloud.deploy("shop", work(ScheduleSpec("* * * * *", overlap=overlap)))

    for _ in range(3):
        await look(cloud, 60)
        await cloud.inner.upkeep.reload()

    assert len(await ticks(cloud)) == jobs
    assert await skipped(cloud) == told
    async with cloud.inner.database.system_unit() as unit:
        assert await unit.fetchval("SELECT count(*) FROM jobs WHERE status = 'cancelled'") == cancelled


@guarantee("G10.4", "overlap_policies")
async def test_a_tick_that_waits_runs_when_the_earlier_run_has_ended(cloud):
    await cloud.deploy("shop", work(ScheduleSpec("* * * * *", overlap="queue_one")))
    worker = await ScriptedWorker(cloud).connect()
    await look(cloud, 60)
    await cloud.inner.upkeep.reload()
    first = await worker.take()
    await look(cloud, 60)
    waiting = (await only(cloud)).schedule.waiting_due
    await look(cloud, 5)
    before = await ticks(cloud)

    worker.succeed(first)
    await cloud.settle()
    await look(cloud)

    assert before == [waiting - timedelta(minutes=1)]
    assert await ticks(cloud) == [*before, waiting]
    assert (await only(cloud)).schedule.waiting_due is None


@guarantee("G10.4", "edit_no_backfire")
async def test_a_change_of_times_or_zone_fires_nothing_of_the_past(cloud):
    await cloud.deploy("shop", work(ScheduleSpec("0 12 * * *")))
    identity = (await only(cloud)).schedule.id
    cloud.live(13 * 3_600)  # noon has passed and nobody has looked yet

    changed = []
    for spec in (ScheduleSpec("0 9 * * *"), ScheduleSpec("0 9 * * *", "Asia/Tokyo"), ScheduleSpec(period_s=3_600)):
        await cloud.deploy("shop", work(spec))
        await look(cloud)
        changed.append((await only(cloud)).schedule)

    assert await ticks(cloud) == []
    assert [one.id for one in changed] == 3 * [identity]
    assert [one.next_due for one in changed] == [
        datetime(2030, 1, 2, 9, tzinfo=UTC),
        datetime(2030, 1, 2, 0, tzinfo=UTC),
        datetime(2030, 1, 1, 14, tzinfo=UTC),
    ]
    assert await skipped(cloud) == [("ended", 1)]


@guarantee("G10.4", "edit_no_backfire")
async def test_a_deploy_without_a_change_keeps_beat_and_pause_and_runs_the_new_code(cloud):
    spec = ScheduleSpec(period_s=3_600)
    await cloud.deploy("shop", work(spec))
    before = (await only(cloud)).schedule
    cloud.live(1_000)
    live = await cloud.deploy("shop", work(ScheduleSpec(period_s=3_600, overlap="allow")), archive=b"next")
    kept = (await only(cloud)).schedule
    await look(cloud, 2_600)
    async with cloud.inner.database.system_unit() as unit:
        deployments = [row["deployment"] for row in await unit.fetch("SELECT deployment FROM jobs")]
    await cloud.services.schedules.pause(cloud.actor, before.id)
    await cloud.deploy("shop", work(ScheduleSpec(period_s=7_200)))
    await look(cloud, 8_000)

    assert (kept.anchor, kept.next_due) == (before.anchor, before.next_due)
    assert deployments == [live.id]
    assert (await only(cloud)).schedule.status == "paused"
    assert len(await ticks(cloud)) == 1


async def test_pause_and_resume_leave_out_what_passed_and_tell_it_once(cloud):
    await cloud.deploy("shop", work(MINUTELY))
    schedules, key = cloud.services.schedules, (await only(cloud)).schedule.id
    paused = await schedules.pause(cloud.actor, key)
    await schedules.pause(cloud.actor, key)
    await look(cloud, 600)
    during = await ticks(cloud)
    resumed = await schedules.resume(cloud.actor, key)
    await schedules.resume(cloud.actor, key)
    await look(cloud)
    after = await ticks(cloud)
    await look(cloud, 60)

    assert (paused.schedule.status, paused.next, resumed.schedule.status) == ("paused", (), "active")
    assert during == after == []
    assert await skipped(cloud) == [("paused", 10)]
    assert await ticks(cloud) == [cloud.clock.now()]


async def test_run_now_makes_a_job_and_leaves_the_ticks_alone(cloud):
    await cloud.deploy("shop", work(ScheduleSpec("0 0 * * *")))
    one = (await only(cloud)).schedule

    jobs = [await cloud.services.schedules.run_now(cloud.actor, one.id) for _ in range(2)]

    made = await cloud.services.jobs.get(cloud.actor, jobs[1])
    after = await only(cloud)
    assert (made.tick.schedule, made.tick.due) == (one.id, None)
    assert [run.job for run in after.runs] == jobs[::-1]
    assert after.schedule.next_due == one.next_due
    assert after.schedule.jobs == tuple(jobs)


@pytest.mark.parametrize("how", ["removed", "unscheduled", "stopped", "deleted"])
async def test_a_schedule_ends_with_its_function_or_deployment_and_begins_anew(cloud, how):
    made = await cloud.deploy("shop", work(ScheduleSpec("* * * * *", overlap="queue_one")), work(None, "other"))
    one = (await only(cloud)).schedule
    await look(cloud, 60)
    await look(cloud, 60)
    if how == "removed":
        await cloud.deploy("shop", work(None, "other"))
    elif how == "unscheduled":
        await cloud.deploy("shop", work(None))
    elif how == "stopped":
        await cloud.services.deployments.stop(cloud.actor, made.id, cancels=False)
    else:
        await cloud.services.deployments.delete(cloud.actor, made.id, cancels=True)
    await look(cloud, 600)
    view = await cloud.services.schedules.get(cloud.actor, one.id)
    for verb in ("pause", "resume", "run_now"):
        with pytest.raises(Conflict) as refused:
            await getattr(cloud.services.schedules, verb)(cloud.actor, one.id)
        assert refused.value.code == "schedule_ended"

    assert (view.schedule.status, view.next) == ("ended", ())
    assert len(await ticks(cloud)) == 1
    assert await skipped(cloud) == [("ended", 1)]
    await cloud.deploy("shop", work(MINUTELY))
    await look(cloud, 60)
    assert (await only(cloud)).schedule.id == one.id
    assert len(await ticks(cloud)) == 2


async def test_a_full_disk_keeps_the_tick_until_there_is_room(cloud):
    await cloud.deploy("shop", work(MINUTELY))
    room = cloud.inner.disk.require_room

    def none():
        raise DiskLow("no room")

    cloud.inner.disk.require_room = none
    with pytest.raises(DiskLow):
        await look(cloud, 60)
    cloud.inner.disk.require_room = room
    await look(cloud)

    assert await ticks(cloud) == [cloud.clock.now()]


async def test_schedules_of_another_org_do_not_exist(cloud):
    await cloud.deploy("shop", work(MINUTELY))
    key = (await only(cloud)).schedule.id

    listed = await cloud.services.schedules.list_schedules(cloud.other_actor, app_name=None, after=None, limit=10)

    assert listed == []
    for verb in ("get", "pause", "resume", "run_now"):
        with pytest.raises(NotFound):
            await getattr(cloud.services.schedules, verb)(cloud.other_actor, key)


@guarantee("G10.3", "dst_table")
async def test_a_nightly_report_runs_once_a_night_over_both_clock_changes_of_a_year(cloud):
    await cloud.deploy("reports", work(ScheduleSpec("30 2 * * *", "Europe/Berlin", overlap="allow"), "nightly"))
    found = []
    for near in (datetime(2030, 3, 29, tzinfo=UTC), datetime(2030, 10, 25, tzinfo=UTC)):
        cloud.clock.advance((near - cloud.clock.now()).total_seconds())
        await look(cloud)  # months in which no server ran
        for _ in range(4):
            due = (await only(cloud)).next[0]
            cloud.clock.advance((due - cloud.clock.now()).total_seconds())
            await look(cloud)
            found.append(due)

    assert await ticks(cloud) == found
    assert [due.strftime("%m-%d %H:%M") for due in found] == [
        "03-29 01:30", "03-30 01:30", "03-31 01:00", "04-01 00:30",
        "10-25 00:30", "10-26 00:30", "10-27 00:30", "10-28 01:30",
    ]  # fmt: skip


async def test_the_nightly_report_of_the_examples_reports_on_days_of_23_24_and_25_hours(cloud, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("nightly_report")
    await cloud.deploy("nightly-report", *example.app.manifest().functions)
    worker = await ScriptedWorker(cloud).connect()
    reports = []
    for near in (datetime(2030, 3, 30, tzinfo=UTC), datetime(2030, 10, 26, tzinfo=UTC)):
        cloud.clock.advance((near - cloud.clock.now()).total_seconds())
        await look(cloud)
        for _ in range(3):
            due = (await only(cloud)).next[0]
            cloud.clock.advance((due - cloud.clock.now()).total_seconds())
            await look(cloud)
            attempt = await run_all(cloud, worker)
            run = await cloud.services.jobs.get(cloud.actor, attempt.job)
            night = run.tick.due.astimezone(example.ZONE)
            report = example.report((night.date() - timedelta(days=1)).isoformat())
            reports.append((f"{night:%m-%d %H:%M}", report["hours"]))

    assert reports == [
        ("03-30 02:30", 24), ("03-31 03:00", 24), ("04-01 02:30", 23),
        ("10-26 02:30", 24), ("10-27 02:30", 24), ("10-28 02:30", 25),
    ]  # fmt: skip
