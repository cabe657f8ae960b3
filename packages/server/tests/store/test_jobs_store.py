"""Reading jobs back: rows, values, outcomes and output."""

from collections.abc import AsyncIterator

import pytest

from apothic.wire.ids import IncarnationId, OrgId, make_key
from apothic.wire.values import Value
from apothic_server.domain.jobs import JobStatus, StoredOutcome, StoredValue
from apothic_server.store import jobs
from apothic_server.store.writer import Writer
from apothic_server.testing.records import NOW, ORG, change, job_id, log_line, new_job, steps

pytestmark = pytest.mark.anyio
OTHER_ORG = OrgId(make_key(0, 9))
WORKER = IncarnationId(make_key(0, 7))


@pytest.fixture
async def writer(database) -> AsyncIterator[Writer]:
    made = Writer(database.connect_writer)
    await made.start()
    yield made
    await made.stop()


async def write(writer: Writer, *records) -> None:
    for record in records[:-1]:
        writer.append_quietly(record)
    assert await writer.append(records[-1])


async def test_a_job_is_read_as_it_was_written(writer, database):
    await write(
        writer,
        new_job(job_id(1)),
        change(job_id(1), "qs", 0, worker=WORKER),
        change(job_id(1), "sr", 1, started_at=NOW),
    )
    async with database.request_unit(ORG) as unit:
        job = await jobs.get_job(unit, ORG, job_id(1))

    assert (job.id, job.org, job.status, job.attempt, job.fence, job.losses) == (
        job_id(1),
        ORG,
        JobStatus.RUNNING,
        1,
        1,
        0,
    )
    assert (job.worker, job.created_at, job.run_at, job.started_at, job.finished_at, job.error) == (
        WORKER,
        NOW,
        NOW,
        NOW,
        None,
        None,
    )


async def test_a_job_of_another_org_is_not_there(writer, database):
    await write(writer, new_job(job_id(1)))
    async with database.system_unit() as unit:
        found = [
            await read(unit, OTHER_ORG, job_id(1))
            for read in (jobs.get_job, jobs.get_arguments, jobs.get_outcome, jobs.get_last_index)
        ]
        assert await jobs.get_log_lines(unit, OTHER_ORG, job_id(1)) == []

    assert found == [None] * 4


async def test_the_outcome_of_a_job_that_succeeded(writer, database):
    await write(writer, new_job(job_id(1)), *steps(job_id(1), "qsr"), change(job_id(1), "rS", 1, result=b"42"))
    async with database.request_unit(ORG) as unit:
        outcome = await jobs.get_outcome(unit, ORG, job_id(1))

    value = StoredValue(Value("json", b"42"))
    assert outcome == StoredOutcome(job_id(1), JobStatus.SUCCEEDED, 1, value, None)


async def test_the_outcome_of_a_job_that_failed(writer, database):
    error = {"type": "builtins.ValueError", "message": "ünïcode \U0001f600", "causes": []}
    await write(writer, new_job(job_id(1)), *steps(job_id(1), "qsr"), change(job_id(1), "rF", 1, error=error))
    async with database.request_unit(ORG) as unit:
        outcome = await jobs.get_outcome(unit, ORG, job_id(1))

    assert outcome == StoredOutcome(job_id(1), JobStatus.FAILED, 1, None, error)


async def test_a_large_value_is_read_as_the_name_of_its_blob(writer, database):
    stored = StoredValue(Value("pickle", b"", "3.11"), "ab" * 32)
    end = change(job_id(1), "rS", 1)
    fields = type(end.fields)(finished_at=NOW, result=stored)
    end = type(end)(end.org, end.job, end.expect_status, end.expect_fence, end.path, fields, end.events)
    await write(writer, new_job(job_id(1)), *steps(job_id(1), "qsr"), end)
    async with database.request_unit(ORG) as unit:
        outcome = await jobs.get_outcome(unit, ORG, job_id(1))

    assert outcome.result == stored


async def test_arguments_are_read_apart_from_the_row(writer, database):
    await write(writer, new_job(job_id(1), arguments=b"\x00\xff" * 1000))
    async with database.request_unit(ORG) as unit:
        assert await jobs.get_arguments(unit, ORG, job_id(1)) == StoredValue(Value("json", b"\x00\xff" * 1000))


async def test_output_is_read_in_pages(writer, database):
    job = job_id(1)
    await write(writer, new_job(job), *steps(job, "qsr"))
    await write(writer, log_line(job, JobStatus.RUNNING, 1, "a", "b"), log_line(job, JobStatus.RUNNING, 1, "c"))
    async with database.request_unit(ORG) as unit:
        first = await jobs.get_log_lines(unit, ORG, job, limit=2)
        rest = await jobs.get_log_lines(unit, ORG, job, after=first[-1].index)
        end = await jobs.get_last_index(unit, ORG, job)

    assert [(event.index, event.data["line"]) for event in first + rest] == [(3, "a"), (4, "b"), (5, "c")]
    assert end == (5, JobStatus.RUNNING)
