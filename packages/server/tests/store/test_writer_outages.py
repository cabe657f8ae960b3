"""The batching writer and a store that goes away: nothing is lost, nothing is written twice, answers are true."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apothic_server.domain.errors import Unavailable
from apothic_server.domain.jobs import JobStatus
from apothic_server.store.address import StoreAddress
from apothic_server.store.connection import Connection, connect
from apothic_server.store.database import Database
from apothic_server.store.writer import OutcomeUnknown, Writer
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.records import change, job_id, log_line, new_job, steps

pytestmark = pytest.mark.anyio

KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'apothic writer' AND datname = current_database()
"""
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'apothic writer' AND wait_event_type = 'Lock' AND datname = current_database()
"""


async def texts(database: Database, job: str) -> list[str]:
    """What the events of a job say, after checking that their indexes are dense."""
    async with database.system_unit() as unit:
        found = await unit.fetch("SELECT * FROM events WHERE stream = $1 ORDER BY index", job)
        next_index = await unit.fetchval("SELECT next_index FROM jobs WHERE id = $1", job)
    assert [row["index"] for row in found] == list(range(next_index))
    return [row["data"] for row in found]


class LossyWire:
    """A socket in front of the store's. Once told to, it lets the next request through and loses the answer."""

    def __init__(self, folder: Path, address: StoreAddress) -> None:
        self.address = replace(address, host=str(folder))
        self.loses_next = False
        self.lost = asyncio.Event()
        self._socket = f".s.PGSQL.{address.port}"
        self._real = f"{address.host}/{self._socket}"
        self._folder = folder
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._folder / self._socket)

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def connect(self) -> Connection:
        return await connect(self.address, name="writer", deadline_s=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(self._real)
        ways = [
            asyncio.create_task(self._copy(reader, store_writer, is_request=True)),
            asyncio.create_task(self._copy(store_reader, writer, is_request=False)),
        ]
        self._tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, store_writer):
            end.close()
        for way in ways:
            way.cancel()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        while data := await reader.read(65536):
            # `ReadyForQuery, idle` ends the answer to a statement whose transaction is over.
            if self.loses_next and not is_request and data.endswith(b"Z\0\0\0\5I"):
                self.loses_next = False
                self.lost.set()
                return
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def wire(postgres: StoreAddress, socket_folder: Path) -> AsyncIterator[LossyWire]:
    made = LossyWire(socket_folder, postgres)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="apothic-wire-"))
    yield folder
    shutil.rmtree(folder)


async def test_a_connection_killed_in_the_middle_of_a_flush_loses_nothing(database):
    writer = Writer(database.connect_writer)
    await writer.start()
    await asyncio.gather(*[writer.append(new_job(job_id(number))) for number in range(20)])
    async with database.system_unit() as unit:
        await unit.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job_id(13))
        answers = [writer.append(change(job_id(number), "qs", 0)) for number in range(20)]
        answers.append(writer.append(change(job_id(3), "rS", 1)))
        async with database.system_unit() as watcher:
            while not await watcher.fetchval(WAITING):
                pass
            await watcher.execute(KILL)

    assert await asyncio.gather(*answers) == [True] * 20 + [False]
    assert writer.counters.reconnects == 1
    for number in range(20):
        assert len(await texts(database, job_id(number))) == 2
    await writer.stop()


async def test_a_connection_killed_while_idle_is_replaced(database):
    writer = Writer(database.connect_writer)
    await writer.start()
    async with database.system_unit() as unit:
        await unit.execute(KILL)

    assert await writer.append(new_job(job_id(1))) is True
    assert len(await texts(database, job_id(1))) == 1
    await writer.stop()


async def test_an_insert_whose_answer_was_lost_is_answered_truly(wire, database):
    writer = Writer(wire.connect)
    await writer.start()
    wire.loses_next = True
    answer = writer.append(new_job(job_id(1)))
    await wire.lost.wait()

    assert await answer is True
    assert len(await texts(database, job_id(1))) == 1
    await writer.stop()


async def test_output_whose_answer_was_lost_is_not_written_twice(wire, database):
    """Appending moves nothing, so the guard alone would let it pass again."""
    writer, job = Writer(wire.connect), job_id(1)
    await writer.start()
    await asyncio.gather(*[writer.append(record) for record in [new_job(job), *steps(job, "qsr")]])
    wire.loses_next = True
    line = log_line(job, JobStatus.RUNNING, 1, "once")
    answers = [writer.append(line), writer.append(log_line(job_id(2), JobStatus.RUNNING, 1, "nobody's"))]
    await wire.lost.wait()

    assert await asyncio.gather(*answers) == [True, False]
    assert [text for text in await texts(database, job) if "once" in text] == ['{"line": "once", "stream": "stdout"}']
    assert await writer.append(line) is True
    assert len(await texts(database, job)) == 5
    await writer.stop()


async def test_a_refusal_whose_answer_was_lost_stays_a_refusal(wire, database):
    writer = Writer(wire.connect)
    await writer.start()
    await writer.append(new_job(job_id(1)))
    wire.loses_next = True
    answer = writer.append(change(job_id(1), "rS", 4))
    await wire.lost.wait()

    assert await answer is False
    await writer.stop()


async def test_a_flush_of_both_kinds_whose_answer_was_lost_is_answered_truly(wire, database):
    writer = Writer(wire.connect)
    await writer.start()
    await writer.append(new_job(job_id(1)))
    wire.loses_next = True
    answers = [writer.append(change(job_id(1), "qs", 0)), writer.append(new_job(job_id(2)))]
    await wire.lost.wait()

    assert await asyncio.gather(*answers) == [True, True]
    assert [len(await texts(database, job_id(number))) for number in (1, 2)] == [2, 1]
    await writer.stop()


class Gate:
    """Connects as long as it is open."""

    def __init__(self, database: Database) -> None:
        self.is_open = True
        self._database = database

    async def __call__(self) -> Connection:
        if not self.is_open:
            raise ConnectionRefusedError
        return await self._database.connect_writer()


async def test_a_store_that_stays_away_fails_the_waiters_and_is_found_again(database):
    gate = Gate(database)
    writer = Writer(gate, away_deadline_s=0.05)
    await writer.start()
    gate.is_open = False
    heard = asyncio.get_running_loop().create_future()
    async with database.system_unit() as unit:
        await unit.execute(KILL)
    sent = writer.append(new_job(job_id(1)))
    with pytest.raises(OutcomeUnknown):
        await sent
    writer.append_quietly(new_job(job_id(2)), heard.set_result)
    queued = writer.append(change(job_id(2), "qs", 0))
    with pytest.raises(Unavailable) as refused:
        await queued

    assert not isinstance(refused.value, OutcomeUnknown)
    assert await heard is False
    assert not writer.is_connected
    gate.is_open = True
    assert await writer.append(new_job(job_id(3))) is True
    assert writer.is_connected
    await writer.stop()


async def test_a_writer_does_not_start_without_a_store(database):
    gate = Gate(database)
    gate.is_open = False
    writer = Writer(gate)

    with pytest.raises(Unavailable):
        await writer.start()
    with pytest.raises(Unavailable):
        writer.append(new_job(job_id(1)))
    await writer.stop()


async def test_stop_ends_while_the_store_is_away(database):
    gate = Gate(database)
    writer = Writer(gate, away_deadline_s=0.05)
    await writer.start()
    gate.is_open = False
    async with database.system_unit() as unit:
        await unit.execute(KILL)
    answer = writer.append(new_job(job_id(1)))
    await writer.stop()

    assert isinstance(answer.exception(), OutcomeUnknown)


async def test_a_statement_that_takes_too_long_is_given_up_and_repeated(database):
    writer = Writer(database.connect_writer, statement_timeout_s=0.5)
    await writer.start()
    await writer.append(new_job(job_id(1)))
    async with database.system_unit() as unit:
        await unit.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job_id(1))
        answer = writer.append(change(job_id(1), "qs", 0))
        while writer.counters.reconnects == 0:
            await unit.fetchval("SELECT 1")

    assert await answer is True
    assert len(await texts(database, job_id(1))) == 2
    await writer.stop()


FULL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@guarantee("G14.2", "disk_full_matrix")
async def test_a_store_that_takes_nothing_is_given_up_in_time_and_written_to_when_it_does_again(database, postgres):
    owner = await connect(postgres, name="test", deadline_s=10)
    await owner.execute(FULL)
    writer = Writer(database.connect_writer, away_deadline_s=0.2)
    await writer.start()

    with pytest.raises(Unavailable) as refused:
        await asyncio.wait_for(writer.append(new_job(job_id(1))), 30)
    behind = writer.append(new_job(job_id(2)))
    await owner.execute("DROP TRIGGER full_disk ON events")
    written = await asyncio.wait_for(behind, 30)

    assert not isinstance(refused.value, OutcomeUnknown)
    assert written
    assert (await texts(database, job_id(2))) != []
    await owner.close()
    await writer.stop()
