"""The batching writer: order, folding, guards, poison, and what it counts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from apothic.wire.ids import OrgId, make_key
from apothic.wire.values import Value
from apothic_server.domain.errors import Unavailable
from apothic_server.domain.idempotency import RequestKey
from apothic_server.domain.jobs import JobStatus, StoredValue
from apothic_server.store.database import Database
from apothic_server.store.flush import SQL
from apothic_server.store.pending import Part, PendingQueue
from apothic_server.store.writer import PoisonRecord, UnwritableRecord, Writer
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.records import NOW, ORG, change, job_id, log_line, new_job, steps

pytestmark = pytest.mark.anyio
OTHER_ORG = OrgId(make_key(0, 9))


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    made = Writer(database.connect_writer)
    await made.start()
    yield made
    await made.stop()


async def rows(database: Database, sql: str, *args: object) -> list[tuple]:
    async with database.system_unit() as unit:
        return [tuple(row.values()) for row in await unit.fetch(sql, *args)]


async def stream(database: Database, job: str) -> list[tuple]:
    """Indexes and kinds of a job's events, after checking that `next_index` follows them."""
    found = await rows(database, "SELECT index, kind FROM events WHERE stream = $1 ORDER BY index", job)
    [(next_index,)] = await rows(database, "SELECT next_index FROM jobs WHERE id = $1", job)
    assert [index for index, _ in found] == list(range(next_index))
    return [kind for _, kind in found]


async def test_a_record_with_a_waiter_is_on_disk_when_it_is_answered(writer, database):
    assert await writer.append(new_job(job_id(1), arguments=b"[[1],{}]")) is True

    assert await rows(database, "SELECT id, org, status, path, arguments, attempt FROM jobs") == [
        (job_id(1), ORG, "queued", "nq", b"[[1],{}]", 0)
    ]


async def test_a_quiet_record_is_written_without_anybody_waiting(writer, database):
    settled = asyncio.get_running_loop().create_future()
    writer.append_quietly(new_job(job_id(1)), settled.set_result)

    assert await settled is True
    assert await rows(database, "SELECT status FROM jobs") == [("queued",)]


async def test_a_blocking_call_is_one_row_write_in_one_commit(writer, database):
    job = job_id(1)
    heard = []
    for record in [new_job(job), *steps(job, "qsr")]:
        writer.append_quietly(record, heard.append)
    answer = writer.append(change(job, "rS", 1, result=b'"hello"'))

    assert await answer is True
    assert heard == [True, True, True]
    assert (writer.counters.commits, writer.counters.folded) == (1, 3)
    assert await rows(database, "SELECT status, path, attempt, fence, result FROM jobs") == [
        ("succeeded", "nqsrS", 1, 1, b'"hello"')
    ]
    assert await stream(database, job) == ["job.queued"] + ["job.status"] * 3


async def test_changes_of_an_existing_job_fold_into_one_update(writer, database):
    job = job_id(1)
    await writer.append(new_job(job))
    answers = [writer.append(record) for record in steps(job, "qsrysrS")]

    assert await asyncio.gather(*answers) == [True] * 6
    assert writer.counters.commits == 2
    assert await rows(database, "SELECT path, attempt, fence FROM jobs") == [("qsrysrS", 2, 2)]


async def test_records_that_do_not_follow_each_other_are_written_in_order(writer, database):
    job = job_id(1)
    first = writer.append(new_job(job))
    stale = writer.append(log_line(job, JobStatus.RUNNING, 7, "too late"))
    later = writer.append(change(job, "qs", 0))

    assert [await first, await stale, await later] == [True, False, True]
    assert await stream(database, job) == ["job.queued", "job.status"]


async def test_a_refused_fold_is_judged_record_by_record(writer, database):
    """The dispatcher lost its role: the job is stored, its grant is not."""
    job = job_id(1)
    heard = []
    writer.append_quietly(new_job(job), heard.append)
    answer = writer.append(change(job, "qs", 0, term=5))

    assert await answer is False
    assert heard == [True]
    assert await rows(database, "SELECT status, attempt FROM jobs") == [("queued", 0)]


async def test_a_grant_needs_the_dispatchers_term(writer, database):
    async with database.system_unit() as unit:
        await unit.execute("INSERT INTO dispatcher (term, holder, url, expires_at) VALUES (5, 'me', '', now())")
    await writer.append(new_job(job_id(1)))

    assert await writer.append(change(job_id(1), "qs", 0, term=4)) is False
    assert await writer.append(change(job_id(1), "qs", 0, term=5)) is True


async def test_a_change_of_another_org_is_refused(writer, database):
    await writer.append(new_job(job_id(1)))

    assert await writer.append(change(job_id(1), "qs", 0, org=OTHER_ORG)) is False
    assert await stream(database, job_id(1)) == ["job.queued"]


async def test_inserting_a_job_twice_is_refused_and_changes_nothing(writer, database):
    await writer.append(new_job(job_id(1), arguments=b"first"))

    assert await writer.append(new_job(job_id(1), arguments=b"second")) is False
    assert await rows(database, "SELECT arguments FROM jobs") == [(b"first",)]
    assert await stream(database, job_id(1)) == ["job.queued"]


@guarantee("G1.3", "stale_attempt_rejected")
async def test_a_write_with_an_old_fence_changes_nothing_and_is_counted(writer, database):
    job = job_id(1)
    await writer.append(new_job(job))
    await asyncio.gather(*[writer.append(record) for record in steps(job, "qsrysr")])
    before = await rows(database, "SELECT jobs, xmin FROM jobs")

    for record in (change(job, "rS", 1), change(job, "rF", 1), log_line(job, JobStatus.RUNNING, 1, "ghost")):
        assert await writer.append(record) is False
    assert writer.counters.refused == 3
    assert await rows(database, "SELECT jobs, xmin FROM jobs") == before
    assert len(await stream(database, job)) == 6


@guarantee("G14.7", "poison_record_fails_alone")
@pytest.mark.parametrize("bad", [0, 17, 63])
async def test_a_record_that_the_store_rejects_fails_alone(writer, database, bad):
    await asyncio.gather(*[writer.append(new_job(job_id(number))) for number in range(64)])
    answers = [writer.append(change(job_id(n), "qr" if n == bad else "qs", 0)) for n in range(64)]
    found = await asyncio.gather(*answers, return_exceptions=True)

    assert isinstance(found[bad], PoisonRecord)
    assert isinstance(found[bad].__cause__, asyncpg.CheckViolationError)
    assert [answer for number, answer in enumerate(found) if number != bad] == [True] * 63
    assert await rows(database, "SELECT id FROM jobs WHERE status = 'queued'") == [(job_id(bad),)]
    assert writer.counters.poisoned == 1


@guarantee("G14.7", "poison_record_fails_alone")
async def test_a_poisoned_record_leaves_the_records_it_was_folded_with(writer, database):
    job = job_id(1)
    inserted = writer.append(new_job(job))
    granted = writer.append(change(job, "qs", 0))
    skipped = writer.append(change(job, "sS", 1))
    started = writer.append(change(job, "sr", 1))
    found = await asyncio.gather(inserted, granted, skipped, started, return_exceptions=True)

    assert [found[0], found[1], found[3]] == [True, True, True]
    assert isinstance(found[2], PoisonRecord)
    assert await rows(database, "SELECT status FROM jobs") == [("running",)]
    assert await stream(database, job) == ["job.queued", "job.status", "job.status"]


@guarantee("G14.7", "poison_record_fails_alone")
@pytest.mark.parametrize(("column", "value"), [("attempt", 2**40), ("started_at", "soon"), ("losses", 0.5)])
async def test_values_that_no_column_takes_are_poison(writer, column, value):
    await writer.append(new_job(job_id(1)))
    answers = [writer.append(change(job_id(1), "qs", 0, **{column: value})), writer.append(new_job(job_id(2)))]
    found = await asyncio.gather(*answers, return_exceptions=True)

    assert isinstance(found[0], PoisonRecord)
    assert found[1] is True


@guarantee("G14.7", "poison_record_fails_alone")
@pytest.mark.parametrize("text", ["a\x00b", "\\\x00", "\ud800", "x\udfff"])
async def test_text_that_the_store_cannot_hold_is_refused_before_queueing(writer, text):
    with pytest.raises(UnwritableRecord):
        writer.append(log_line(job_id(1), JobStatus.RUNNING, 1, text))

    assert writer.waiting == 0


@guarantee("G14.7", "poison_record_fails_alone")
@pytest.mark.parametrize("text", ["a\x00b", "\\\x00", "\ud800", "x\udfff"])
@pytest.mark.parametrize("others", [0, 2])
async def test_a_column_that_the_store_cannot_hold_is_poison(writer, database, text, others):
    python = StoredValue(Value("json", b"1", text))
    answers = [writer.append(new_job(job_id(number))) for number in range(others)]
    for bad in (replace(new_job(job_id(7)), arguments=python), change(job_id(8), "qs", 0, worker=text)):
        with pytest.raises(PoisonRecord):
            await writer.append(bad)

    assert await asyncio.gather(*answers) == [True] * others
    assert await rows(database, "SELECT count(*) FROM jobs") == [(others,)]


def full_call(job):
    """Records that fill what a call alone fills, in the order of their moves."""
    return [
        replace(
            new_job(job, arguments=b"[[1],{}]"),
            key=RequestKey(b"d" * 31 + job[-1].encode(), b"f" * 32),
            arguments=StoredValue(Value("pickle", b"\x80", "3.11")),
        ),
        change(job, "qs", 0, worker="me", term=5),
        change(job, "sr", 1, started_at=NOW),
        change(job, "rS", 1, result=b'"\xc3\xa9"'),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_a_row_is_the_same_written_alone_and_among_others(writer, database, count):
    async with database.system_unit() as unit:
        await unit.execute("INSERT INTO dispatcher (term, holder, url, expires_at) VALUES (5, 'me', '', now())")
    alone = [writer.append(record) for record in full_call(job_id(1))[:count]]
    assert await asyncio.gather(*alone) == [True] * count
    assert writer.counters.commits == 1
    company = [writer.append(record) for job in (job_id(2), job_id(3)) for record in full_call(job)[:count]]
    assert await asyncio.gather(*company) == [True] * count * 2

    whole = "to_jsonb({0}) - ARRAY['id', 'stream', 'job', 'digest', 'flush']"
    for table, per_job in (("jobs", 1), ("events", count), ("idempotency_keys", 1)):
        found = await rows(database, f"SELECT {whole.format(table)}, count(*) FROM {table} GROUP BY 1")
        assert [number for _, number in found] == [3] * per_job
    assert await rows(database, "SELECT count(*) FROM jobs WHERE id = ANY (SELECT job FROM idempotency_keys)") == [(3,)]


@pytest.mark.parametrize("held", ["job", "key", "term"])
async def test_a_job_alone_is_refused_as_among_others(writer, database, held):
    first, granted = full_call(job_id(1))[0], replace(full_call(job_id(2))[0], term=5 if held == "term" else None)
    if held != "term":
        await writer.append(first)
        granted = replace(granted, id=first.id) if held == "job" else replace(granted, key=first.key)
    before = await rows(database, "SELECT count(*), max(flush) FROM events")

    assert await writer.append(granted) is False
    assert await rows(database, "SELECT count(*), max(flush) FROM events") == before
    assert await rows(database, "SELECT count(*) FROM idempotency_keys") == [(0 if held == "term" else 1,)]


async def test_text_that_only_looks_like_an_escaped_nul_is_kept(writer, database):
    job, text = job_id(1), "\\u0000 and \\\\u0000"
    await asyncio.gather(*[writer.append(record) for record in [new_job(job), *steps(job, "qsr")]])

    assert await writer.append(log_line(job, JobStatus.RUNNING, 1, text)) is True
    assert await rows(database, "SELECT data ->> 'line' FROM events WHERE kind = 'job.log'") == [(text,)]


async def test_a_listener_that_fails_does_not_stop_the_writer(writer):
    def listener(applied: bool) -> None:
        raise RuntimeError("a listener's own mistake")

    writer.append_quietly(new_job(job_id(1)), listener)

    assert await writer.append(new_job(job_id(2))) is True


@guarantee("G14.7", "two_writers_no_deadlock")
async def test_two_writers_that_change_the_same_jobs_never_wait_in_a_circle(writer, database):
    other = Writer(database.connect_writer)
    await other.start()
    jobs = [job_id(number) for number in range(200)]
    await asyncio.gather(*[writer.append(new_job(job)) for job in jobs])
    for step in ("qs", "sr", "ry", "ys", "sr", "rS"):
        fence = await current_fence(database)
        mine = [writer.append(change(job, step, fence)) for job in jobs]
        its = [other.append(change(job, step, fence)) for job in reversed(jobs)]
        answers = zip(await asyncio.gather(*mine), reversed(await asyncio.gather(*its)), strict=True)
        assert all(a + b == 1 for a, b in answers)
    await other.stop()

    assert writer.counters.retries + other.counters.retries == 0


async def current_fence(database: Database) -> int:
    [(fence,)] = await rows(database, "SELECT DISTINCT fence FROM jobs")
    return fence


@guarantee("G5.1", "indexes_dense")
async def test_indexes_are_dense_over_folded_refused_and_poisoned_records(writer, database):
    jobs = [job_id(number) for number in range(20)]
    answers = [writer.append(new_job(job)) for job in jobs]
    for round_number in range(5):
        for job in jobs:
            fence = round_number
            line = log_line(job, JobStatus.RUNNING, fence + 1, "one", "two")
            path = "qsr" if round_number == 0 else "ysr"
            answers += [writer.append(record) for record in steps(job, path, fence)]
            answers += [writer.append(line), writer.append(log_line(job, JobStatus.RUNNING, 99, "stale"))]
            answers += [writer.append(change(job, "rq", fence + 1)), writer.append(change(job, "ry", fence + 1))]
        await asyncio.gather(*answers, return_exceptions=True)

    for job in jobs:
        kinds = await stream(database, job)
        assert len(kinds) == 1 + 5 * 5
    assert writer.counters.poisoned == 100
    assert writer.counters.refused == 100


async def test_a_full_queue_refuses_new_jobs_before_it_refuses_changes(database):
    writer = Writer(database.connect_writer, records_max=4)
    await writer.start()
    answers = [writer.append(new_job(job_id(1))), writer.append(new_job(job_id(2)))]
    with pytest.raises(Unavailable) as refused:
        writer.append(new_job(job_id(3)))
    answers += [writer.append(change(job_id(1), "qs", 0)), writer.append(change(job_id(2), "qs", 0))]
    with pytest.raises(Unavailable):
        writer.append(change(job_id(2), "sr", 1))

    assert refused.value.retry_after_s == 1
    assert await asyncio.gather(*answers) == [True] * 4
    await writer.stop()


async def test_records_that_may_wait_share_the_commit_of_one_that_may_not(writer):
    await asyncio.gather(writer.append(new_job(job_id(1))), writer.append(new_job(job_id(2))))
    commits, told = writer.counters.commits, []
    writer.append_told(change(job_id(1), "qs", 0), told.append, within_s=3600)
    writer.append_told(change(job_id(1), "qs", 0), told.append, within_s=3600)
    writer.append_told(change(job_id(2), "qs", 0), told.append, within_s=3600)
    before = list(told)

    assert await writer.append(new_job(job_id(3))) is True

    assert (before, told, writer.counters.commits - commits) == ([], [True, True], 1)
    assert await writer.append(change(job_id(1), "sr", 1)) is True
    assert told == [True, True, False]


async def test_a_record_that_may_wait_a_little_is_written_then(writer):
    await writer.append(new_job(job_id(1)))
    told = asyncio.get_running_loop().create_future()
    writer.append_told(change(job_id(1), "qs", 0), lambda _: None, within_s=3600)

    writer.append_told(change(job_id(1), "sr", 1), told.set_result, within_s=0.001)

    assert await told is True


def test_what_is_due_is_taken_though_the_record_before_it_could_wait_longer():
    """A call that waits for its turn is patient; its grant is not."""
    queue, job = PendingQueue(), job_id(1)
    queue.add(Part(new_job(job), within_s=1.0, ride_after_s=1.0), 0.0)
    queue.add(Part(change(job, "qs", 0), within_s=0.2, ride_after_s=0.1), 0.5)

    assert queue.due() == pytest.approx(0.7)
    assert queue.take(0.55, 10) == []
    assert [pending.job for pending in queue.take(0.65, 10)] == [job]


async def test_stop_writes_what_is_queued_and_refuses_more(database):
    writer = Writer(database.connect_writer)
    await writer.start()
    await writer.start()
    answer = writer.append(new_job(job_id(1)))
    writer.append_quietly(new_job(job_id(2)))
    await asyncio.gather(writer.stop(), writer.stop())
    await writer.stop()

    assert answer.result() is True
    assert await rows(database, "SELECT count(*) FROM jobs") == [(2,)]
    with pytest.raises(Unavailable):
        writer.append(new_job(job_id(3)))


async def test_a_stopped_writer_starts_again(database):
    writer = Writer(database.connect_writer)
    await writer.stop()
    await writer.start()
    await writer.stop()
    await writer.start()

    assert await writer.append(new_job(job_id(1))) is True
    await writer.stop()


async def test_the_commit_delay_is_added_to_each_commit(database):
    loop = asyncio.get_running_loop()
    writer = Writer(database.connect_writer, commit_delay_s=0.05)
    await writer.start()
    begun = loop.time()
    await writer.append(new_job(job_id(1)))
    await asyncio.gather(writer.append(new_job(job_id(2))), writer.append(change(job_id(1), "qs", 0)))

    assert loop.time() - begun >= 0.1
    await writer.stop()


async def blocking_call(writer: Writer, job: str) -> None:
    for record in [new_job(job), *steps(job, "qsr")]:
        writer.append_quietly(record)
    assert await writer.append(change(job, "rS", 1, result=b"1")) is True


async def test_64_calls_in_flight_share_their_commits(writer, capsys):
    numbers = iter(range(1_600))

    async def client() -> None:
        for number in numbers:
            await blocking_call(writer, job_id(number))

    await asyncio.gather(*[client() for _ in range(64)])

    per_job = writer.counters.commits / 1_600
    with capsys.disabled():
        print(f"\n  P6: {per_job:.3f} commits per job with 64 in flight")
    assert per_job <= 0.2


async def test_one_call_at_a_time_needs_one_commit(writer, capsys):
    for number in range(100):
        await blocking_call(writer, job_id(number))

    with capsys.disabled():
        print(f"\n  P6: {writer.counters.commits / 100:.2f} commits per job, one at a time")
    assert writer.counters.commits <= 2 * 100


async def test_the_plans_of_the_statements_probe_the_key_whatever_the_tables_hold(writer, database):
    """A plan is made once per connection; on an empty table a bad one would look just as cheap."""
    async with database.system_unit() as unit:
        await unit.execute("ANALYZE jobs")
        await unit.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await unit.execute("SET LOCAL enable_seqscan = off")
        await unit.execute(f"PREPARE change (jsonb, bytea[], bigint) AS {SQL['change_jobs']}")
        plan = "\n".join(row[0] for row in await unit.fetch("EXPLAIN EXECUTE change ('[]', '{}', 0)"))
        await unit.execute("DEALLOCATE change")

    assert "Index Scan using jobs_pkey on jobs" in plan
    assert "Hash Join" not in plan
    assert "Merge Join" not in plan


def test_a_record_needs_an_event():
    empty = replace(new_job(job_id(1)), events=())

    with pytest.raises(UnwritableRecord):
        PendingQueue().add(Part(empty), 0.0)
