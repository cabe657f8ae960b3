"""Items beyond what one job may keep: the oldest go, and a reader that wanted them is told (G5.4)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from apothic import ControlPlaneClient, Job, JobStreamResetError
from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import KIB, MIB
from apothic_server.listener import Listener, bind, url_of
from apothic_server.loops.retention import Retention
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

KEPT = 9 * MIB
ITEM = 64 * KIB
PER_MIB = MIB // ITEM
FIRST_ITEM = 3
"""Index of a job's first item: the job is queued, granted and running before it."""


@pytest.fixture
async def client(cloud) -> AsyncIterator[ControlPlaneClient]:
    """The SDK, connected to the cloud over a socket."""
    bound = bind("127.0.0.1", 0)
    listener = Listener(cloud.asgi, bound)
    listener.start()
    made = ControlPlaneClient(url_of(bound), api_key=cloud.key)
    yield made
    await asyncio.to_thread(made.close)
    await listener.stop()


@pytest.fixture
def retention(cloud):
    return Retention(cloud.inner.database, cloud.clock, item_bytes_max=KEPT)


class Generator:
    """A generator that yields large items, each of which begins with its number."""

    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self.count = 0

    async def begin(self, worker=None):
        """Start a job, on a worker of its own unless one is given."""
        await self.cloud.deploy("shop", FunctionSpec("work", qualname="work", is_generator=True))
        self.worker = worker or await ScriptedWorker(self.cloud).connect()
        self.submitted = await self.cloud.spawn()
        self.attempt = await self.worker.take()
        return self

    async def send(self, mebibytes: int) -> None:
        """Yield items and wait until they are on disk."""
        for _ in range(mebibytes):
            numbers = range(self.count, self.count + PER_MIB)
            self.worker.yield_items(self.attempt, self.count, *[item(number) for number in numbers])
            self.count += PER_MIB
        await self.taken()

    async def send_one(self) -> None:
        """Yield one item and wait until it is on disk."""
        self.worker.yield_items(self.attempt, self.count, b'"%06d"' % self.count)
        self.count += 1
        await self.taken()

    async def taken(self) -> None:
        while (await self.worker.next("items_taken")).upto < self.count:
            pass

    async def end(self) -> None:
        self.worker.succeed(self.attempt)
        await ended(self.submitted)


def item(number):
    """JSON text of almost `ITEM` bytes."""
    return b'"%06d%b"' % (number, b"x" * (ITEM - 10))


async def stored(cloud, job):
    """Return bytes, first index and floor of a job's kept items."""
    async with cloud.inner.database.system_unit() as unit:
        row = await unit.fetchrow(
            "SELECT sum(size_bytes) AS size, min(first_index) AS first,"
            " (SELECT first_item FROM stream_floors WHERE stream = $1) AS floor FROM item_segments WHERE stream = $1",
            job,
        )
    return row["size"], row["first"], row["floor"]


def numbers(items):
    return [int(found[:6]) for found in items]


@guarantee("G5.4", "retention_floor")
async def test_beyond_the_bound_the_oldest_items_go_and_no_others(cloud, retention):
    generator = await Generator(cloud).begin()
    job = generator.submitted.job
    await generator.send(9)
    await retention.step()
    whole = await stored(cloud, job)

    await generator.send(3)
    await retention.step()
    size, first, floor = await stored(cloud, job)

    assert (whole[0] <= KEPT, whole[2]) == (True, None), "up to the bound nothing goes"
    assert KEPT - MIB <= size <= KEPT
    assert first == floor > whole[1]
    await retention.step()
    assert await stored(cloud, job) == (size, first, floor)

    await generator.send(2)
    await retention.step()
    later = await stored(cloud, job)
    assert (KEPT - MIB <= later[0] <= KEPT, later[1]) == (True, later[2]), "bytes that went count no more"
    assert later[2] > floor
    await retention.step()
    assert await stored(cloud, job) == later


@guarantee("G5.4", "retention_floor")
async def test_the_items_of_a_job_that_has_ended_meanwhile_are_bounded_too(cloud, retention):
    generator = await Generator(cloud).begin()
    await generator.send(12)
    await generator.end()

    await retention.step()

    size, first, floor = await stored(cloud, generator.submitted.job)
    assert KEPT - MIB <= size <= KEPT
    assert first == floor


async def test_a_job_is_not_bounded_by_what_others_yielded(cloud, retention):
    worker = await ScriptedWorker(cloud).connect()
    jobs = []
    for mebibytes in (7, 12, 7):
        generator = await Generator(cloud).begin(worker)
        await generator.send(mebibytes)
        await generator.end()
        jobs.append(generator.submitted.job)

    await retention.step()

    assert [(await stored(cloud, job))[2] is not None for job in jobs] == [False, True, False]


@guarantee("G5.4", "retention_floor")
@pytest.mark.parametrize("is_over", [True, False], ids=["ended", "running"])
async def test_a_reader_below_the_floor_is_told_and_goes_on_as_it_chose(cloud, client, retention, is_over):
    generator = await Generator(cloud).begin()
    await generator.send(12)
    if is_over:
        await generator.end()
    await retention.step()
    _, _, floor = await stored(cloud, generator.submitted.job)
    oldest = floor - FIRST_ITEM
    job = Job(f"jobs:{generator.submitted.job}", client)

    with pytest.raises(JobStreamResetError) as caught:
        await asyncio.to_thread(next, job.wait_gen(on_reset="raise"))
    assert (caught.value.requested_index, caught.value.oldest_index) == (-1, floor)
    if not is_over:
        produced = generator.count
        reading = asyncio.create_task(asyncio.to_thread(first_number, job))
        while not reading.done():
            await generator.send_one()
        assert await reading >= produced, "what was there before the reset is left out"
        await generator.end()
    assert await asyncio.to_thread(lambda: numbers(job.wait_gen(on_reset="snapshot"))) == []
    kept = await asyncio.to_thread(lambda: numbers(job.wait_gen(on_reset="continue")))
    assert kept == list(range(oldest, generator.count))
    assert await asyncio.to_thread(lambda: numbers(job.wait_gen(last_index=floor - 1))) == kept, "nothing is missing"


@guarantee("G5.4", "retention_floor")
async def test_a_page_of_events_begins_with_the_reset_too(cloud, retention):
    generator = await Generator(cloud).begin()
    await generator.send(12)
    await generator.end()
    await retention.step()
    _, _, floor = await stored(cloud, generator.submitted.job)

    page = f"/v1/jobs/jobs:{generator.submitted.job}/events?types=job.stream_item"
    events = (await AsgiClient(cloud.asgi, cloud.key).request("GET", f"{page}&after=-1&limit=2")).json["events"]
    first = (await AsgiClient(cloud.asgi, cloud.key).request("GET", f"{page}&after={floor - 1}&limit=1")).json["events"]

    assert [event["event"] for event in events] == ["job.reset"]
    assert events[0]["data"]["oldest_index"] == floor
    assert [(event["index"], event["data"]["ordinal"]) for event in first] == [(floor, floor - FIRST_ITEM)]


def first_number(job):
    """Read past the reset, then leave with the first item that comes."""
    items = job.wait_gen(on_reset="snapshot")
    found = numbers([next(items)])
    items.close()
    return found[0]
