"""Table J in the database: the same moves as the domain's life cycle, and no others."""

import itertools

import asyncpg
import pytest

from apothic.wire.ids import make_key
from apothic_server.domain.jobs import FINAL, JOB, LETTERS, NEW, JobStatus
from apothic_server.store.database import Database
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.records import NOW, ORG

pytestmark = pytest.mark.anyio

LEGAL = {(state, after) for state, moves in JOB.table.items() for after in moves.values()}
PAIRS = list(itertools.permutations(JobStatus, 2))
REFUSALS = asyncpg.PostgresError
INSERT = """
    INSERT INTO jobs (id, org, app, deployment, function, status, path, run_at, arguments_encoding, next_index,
        created_by, created_at, finished_at)
    VALUES ($1, $2, '', '', '', $3, $4, $5, 'json', 0, '', $5, $6)
"""
MOVE = "UPDATE jobs SET status = $2, path = $3, finished_at = $4 WHERE id = $1"
JOB_ID = make_key(0, 5)


def paths_to() -> dict[JobStatus, str]:
    """A legal path from nothing to each status."""
    found = {JobStatus.QUEUED: NEW + LETTERS[JobStatus.QUEUED]}
    while len(found) < len(JobStatus):
        for before, after in LEGAL:
            if before in found:
                found.setdefault(after, found[before] + LETTERS[after])
    return found


async def insert(database: Database, status: JobStatus, path: str) -> None:
    async with database.system_unit() as unit:
        await unit.execute(INSERT, JOB_ID, ORG, status.value, path, NOW, NOW if status in FINAL else None)


async def move(database: Database, after: JobStatus, path: str) -> None:
    async with database.system_unit() as unit:
        await unit.execute(MOVE, JOB_ID, after.value, path, NOW if after in FINAL else None)


async def row(database: Database) -> list[tuple]:
    async with database.system_unit() as unit:
        return [tuple(found.values()) for found in await unit.fetch("SELECT status, path, finished_at, xmin FROM jobs")]


@guarantee("G1.1", "job_terminal_once", count=81)
@pytest.mark.parametrize("before", JobStatus, ids=lambda status: status.value)
async def test_the_database_takes_the_moves_of_the_life_cycle_and_no_others(database, before):
    for after in JobStatus:
        async with database.system_unit() as unit:
            await unit.execute("TRUNCATE jobs CASCADE")
        await insert(database, before, paths_to()[before])
        stored = await row(database)
        if (before, after) in LEGAL:
            await move(database, after, LETTERS[before] + LETTERS[after])
            assert (await row(database))[0][0] == after.value
        else:
            with pytest.raises(REFUSALS):
                await move(database, after, LETTERS[before] + LETTERS[after])
            assert await row(database) == stored


@guarantee("G1.1", "job_terminal_once")
@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda status: status.value)
async def test_a_false_path_does_not_hide_an_illegal_move(database, before, after):
    """A path that is legal by itself but begins elsewhere, or ends elsewhere, or skips a step."""
    await insert(database, before, paths_to()[before])
    stored = await row(database)
    for path in [paths_to()[after], *(LETTERS[a] + LETTERS[b] for a, b in LEGAL if (a, b) != (before, after))]:
        begins_right, ends_right = path[0] == LETTERS[before], path[-1] == LETTERS[after]
        if not (begins_right and ends_right):
            with pytest.raises(REFUSALS):
                await move(database, after, path)
    assert await row(database) == stored


@guarantee("G1.1", "job_terminal_once")
@pytest.mark.parametrize("final", sorted(FINAL, key=lambda status: status.value), ids=lambda status: status.value)
async def test_an_ended_job_never_changes(database, final):
    await insert(database, final, paths_to()[final])
    stored = await row(database)
    for sql in ("result = 'x'", "error = '{}'", "next_index = 7", "finished_at = now()", "fence = 3"):
        with pytest.raises(asyncpg.PostgresError):
            async with database.system_unit() as unit:
                await unit.execute(f"UPDATE jobs SET {sql}")

    assert await row(database) == stored


@pytest.mark.parametrize("path", ["", "n", "q", "qs", "nqq", "nqx", "nq ", "nqsrSq", "nqrS", "nnq", "NQ", "nq\n"])
async def test_a_job_begins_with_a_legal_path(database, path):
    for status in JobStatus:
        with pytest.raises(asyncpg.PostgresError):
            await insert(database, status, path)


async def test_a_job_that_has_not_ended_is_not_deleted(database):
    await insert(database, JobStatus.RUNNING, "nqsr")
    with pytest.raises(asyncpg.PostgresError, match="not finished"):
        async with database.system_unit() as unit:
            await unit.execute("DELETE FROM jobs")
    await move(database, JobStatus.FAILED, "rF")
    async with database.system_unit() as unit:
        await unit.execute("DELETE FROM jobs")

    assert await row(database) == []


async def test_an_unknown_status_is_refused(database):
    with pytest.raises(asyncpg.PostgresError):
        async with database.system_unit() as unit:
            await unit.execute(INSERT, JOB_ID, ORG, "paused", "nq", NOW, None)
