"""Items of generators: into the stream once, retried only when asked for, and paused by a slow reader."""

import asyncio
import json

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import ITEMS_UNREAD_MAX, KIB, MIB
from apothic.wire.link import Items
from apothic_server.domain.jobs import JobStatus
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.domain.views import Batch, ItemRun
from apothic_server.services.runs import items_of
from apothic_server.testing.asgi import AsgiClient, CutError
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def begin(cloud, **options):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", is_generator=True, **options))
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    return worker, job, await worker.take()


async def taken(worker):
    return (await worker.next("items_taken")).upto


def parse(body):
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


async def stream(client, job, query=""):
    answer = await client.request("GET", f"/v1/jobs/jobs:{job}/events{query}", headers=SSE)
    assert answer.status == 200, answer.body
    return parse(answer.body)


async def stored(cloud, job):
    """Ordinals on disk by index, in order."""
    async with cloud.inner.database.system_unit() as unit:
        rows = await unit.fetch(
            "SELECT first_index, last_index, attempt, first_ordinal FROM item_segments WHERE stream = $1 ORDER BY 1",
            job,
        )
    return [
        (row["first_index"] + place, row["attempt"], row["first_ordinal"] + place)
        for row in rows
        for place in range(row["last_index"] - row["first_index"] + 1)
    ]


async def on_disk(cloud, job, count):
    """Wait until so many items of a job are in its stream."""
    watch = await cloud.services.streams.watch(cloud.actor, StreamRef(StreamKind.JOB, job))
    after, found = -1, 0
    async with asyncio.timeout(10):
        while found < count:
            batch = await watch.next(after, timeout_s=5)
            after = batch.last_index
            found += sum(event.count for event in batch.events if isinstance(event, ItemRun))
    watch.close()


async def test_items_get_dense_indexes_between_the_other_events(cloud, client):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, b'"a"', b'{"b": 1}')
    worker.log(attempt, "a line")
    worker.yield_items(attempt, 2, b"null")
    worker.succeed(attempt, b"3")
    await ended(job)

    events = await stream(client, job.job)

    assert [index for index, _, _ in events] == list(range(len(events)))
    items = [data for _, kind, data in events if kind == "job.stream_item"]
    expected = ["a", {"b": 1}, None]
    assert items == [
        {"attempt": 1, "ordinal": ordinal, "encoding": "json", "python": None, "item": item}
        for ordinal, item in enumerate(expected)
    ]
    assert [kind for _, kind, _ in events][-2:] == ["job.result", "job.end"]


async def test_a_reader_resumes_after_every_index_inside_a_segment_too(cloud, client):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, *[str(number).encode() for number in range(5)])
    worker.yield_items(attempt, 5, b"\x80\x05K\x01.", b"\x80\x05K\x02.", encoding="pickle")
    worker.succeed(attempt)
    await ended(job)
    whole = await stream(client, job.job)

    for after in range(-1, len(whole) - 1):
        assert await stream(client, job.job, f"?after={after}") == whole[after + 1 :]
        page = await client.request("GET", f"/v1/jobs/jobs:{job.job}/events?after={after}&limit=2")
        assert [event["index"] for event in page.json["events"]] == [after + 1, after + 2][: len(whole) - after - 1]
        packed = await stream(client, job.job, f"?after={after}&items=packed&types=job.stream_item")
        assert packed[0][1] == "job.alive"
        got = [
            (data["first_index"] + place, data["first_ordinal"] + place)
            for _, kind, data in packed
            if kind == "job.stream_items"
            for place in range(len(data["items"]))
        ]
        wanted = [(index, data["ordinal"]) for index, kind, data in whole[after + 1 :] if kind == "job.stream_item"]
        assert got == wanted
        assert packed[0][2]["next_ordinal"] == (wanted[0][1] if wanted else 7)


async def test_items_that_a_worker_sends_again_are_taken_and_stored_once(cloud):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, b"1", b"2")
    assert await taken(worker) == 2

    worker.disconnect()
    await worker.connect(attempt)
    worker.yield_items(attempt, 0, b"1", b"2")
    worker.yield_items(attempt, 2, b"3")

    assert {await taken(worker), await taken(worker)} == {2, 3}
    worker.succeed(attempt)
    await ended(job)
    assert [ordinal for _, _, ordinal in await stored(cloud, job.job)] == [0, 1, 2]


@pytest.mark.parametrize(
    "item",
    [
        Items("", 0, 1, 1, "json", b"[1]"),
        Items("", 0, 0, 2, "json", b"[1]"),
        Items("", 0, 0, 1, "json", b"[1"),
        Items("", 0, 0, 1, "json", b"1"),
        Items("", 0, 0, 0, "json", b"[]"),
        Items("", 0, 0, 1, "yaml", b"[1]"),
        Items("", 0, 0, 1, "pickle", b"\0\0\0\x09abc"),
        Items("", 0, 0, 1, "json", b"[1]", "2.7"),
        Items("", 0, 0, 1, "json", b'["' + b"x" * (2 * MIB) + b'"]'),
    ],
    ids=["gap", "count", "cut", "no array", "empty", "encoding", "pickle", "python", "large"],
)
async def test_a_worker_that_sends_no_proper_items_changes_nothing(cloud, item):
    worker, job, attempt = await begin(cloud)

    worker.report(
        {
            "items": [
                Items(attempt.job, attempt.fence, item.first_ordinal, item.count, item.encoding, item.data, item.python)
            ]
        }
    )
    worker.report({"items": [Items(attempt.job, attempt.fence + 1, 0, 1, "json", b"[1]")]})
    worker.succeed(attempt)
    await ended(job)

    assert await stored(cloud, job.job) == []


async def test_the_end_of_an_attempt_comes_after_its_items_and_they_stay_readable_after_a_failure(cloud, client):
    worker, job, attempt = await begin(cloud)
    for ordinal in range(50):
        worker.yield_items(attempt, ordinal, b"%d" % ordinal)
    worker.fail(attempt)
    outcome = await ended(job)

    events = await stream(client, job.job)

    assert outcome.status is JobStatus.FAILED
    kinds = [kind for _, kind, _ in events]
    assert kinds[-2:] == ["job.error", "job.end"]
    assert kinds.count("job.stream_item") == 50


@guarantee("G2.8", "generator_retry_items")
@pytest.mark.parametrize("loss", ["failed", "lost"])
@pytest.mark.parametrize("retries", [0, 2])
async def test_after_a_published_item_a_job_is_granted_again_only_with_retries(cloud, client, loss, retries):
    worker, job, attempt = await begin(cloud, max_retries=retries)
    worker.yield_items(attempt, 0, b"1", b"2")
    assert await taken(worker) == 2

    worker.fail(attempt, outcome=loss, code="exception" if loss == "failed" else "worker_lost")
    if retries:
        await cloud.advance(5)
        again = await worker.take()
        worker.yield_items(again, 0, b"1", b"2", b"3")
        worker.succeed(again)
    outcome = await ended(job)
    items = [data for _, kind, data in await stream(client, job.job) if kind == "job.stream_item"]

    places = [(data["attempt"], data["ordinal"]) for data in items]
    if retries:
        assert (outcome.status, outcome.attempt) == (JobStatus.SUCCEEDED, 2)
        assert places == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    else:
        assert (outcome.status, outcome.attempt) == (JobStatus.FAILED, 1)
        assert outcome.error.code == ("exception" if loss == "failed" else "worker_lost")
        assert places == [(1, 0), (1, 1)]


@guarantee("G2.8", "generator_retry_items")
async def test_without_a_published_item_a_lost_generator_is_granted_again(cloud):
    worker, job, attempt = await begin(cloud)

    worker.fail(attempt, outcome="lost", code="worker_lost")
    again = await worker.take()
    worker.succeed(again)

    assert (await ended(job)).attempt == 2


@guarantee("G5.4", "slow_reader_pauses_generator")
async def test_a_generator_waits_for_an_attached_reader_and_for_no_other(cloud):
    worker, job, attempt = await begin(cloud)
    batch = [b'"' + b"x" * (32 * KIB) + b'"'] * 8
    size = sum(map(len, batch))
    streams, sent = cloud.services.streams, 0

    async def send():
        nonlocal sent
        worker.yield_items(attempt, sent, *batch)
        sent += len(batch)

    for _ in range(2 * ITEMS_UNREAD_MAX // size):
        await send()
        assert await taken(worker) == sent, "nobody reads, and nothing waits"
    reader = streams.attach(job.job, sent)
    for _ in range(ITEMS_UNREAD_MAX // size):
        await send()
        assert await taken(worker) == sent
    await send()
    await send()
    await on_disk(cloud, job.job, sent)
    waits = [name for name, _ in worker.received if name == "items_taken"]
    assert waits == [], "more than 4 MiB are unread"

    reader.advance(1, sent - len(batch))
    assert await taken(worker) == sent
    reader.close()
    for _ in range(2 * ITEMS_UNREAD_MAX // size):
        await send()
        assert await taken(worker) == sent, "nobody is attached any more"


@guarantee("G5.4", "slow_reader_pauses_generator")
@pytest.mark.parametrize(("query", "is_kept"), [("?items=packed", True), ("", False)])
async def test_a_reader_busy_with_one_item_for_longer_than_a_watcher_may_be_stays_attached(cloud, query, is_kept):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, b"0")
    await on_disk(cloud, job.job, 1)
    cloud.asgi.reader_idle_s = 0.0
    took = asyncio.Event()
    taken_before = asyncio.Event()

    async def app(scope, receive, send):
        async def take(message):
            if message["type"] == "http.response.body" and not took.is_set():
                taken_before.set()
                await took.wait()
            await send(message)

        await cloud.asgi(scope, receive, take)

    reading = asyncio.ensure_future(
        AsgiClient(app, cloud.key).request("GET", f"/v1/jobs/jobs:{job.job}/events{query}", headers=SSE)
    )
    await taken_before.wait()
    worker.succeed(attempt)
    await ended(job)
    took.set()

    if is_kept:
        assert "job.end" in [kind for _, kind, _ in parse((await reading).body)]
    else:
        with pytest.raises(CutError):
            await reading


@guarantee("G5.4", "slow_reader_pauses_generator")
async def test_a_generator_waits_for_the_slowest_of_its_readers(cloud):
    worker, job, attempt = await begin(cloud)
    batch = [b'"' + b"x" * (32 * KIB) + b'"'] * 8
    slow, fast = (cloud.services.streams.attach(job.job, 0) for _ in range(2))
    sent = 0
    for _ in range(ITEMS_UNREAD_MAX // sum(map(len, batch)) + 2):
        worker.yield_items(attempt, sent, *batch)
        sent += len(batch)
        await on_disk(cloud, job.job, sent)
        fast.advance(1, sent)

    told = [item.upto for name, item in worker.received if name == "items_taken"]
    worker.received.clear()
    assert max(told) < sent, "one reader has everything, the other one nothing"

    slow.advance(1, sent)
    assert await taken(worker) == sent


async def test_items_are_kept_where_other_events_rotate(cloud, client):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, b"0")
    for _ in range(11):
        worker.log(attempt, *["line"] * 1_000)
    worker.yield_items(attempt, 1, *[b"1"] * 20_000)
    worker.succeed(attempt)
    assert await taken(worker) > 0
    await cloud.inner.retention.step()
    await ended(job)

    ref = StreamRef(StreamKind.JOB, job.job)
    items = frozenset({"job.stream_item", "job.end"})
    read = await cloud.services.streams.read(cloud.actor, ref, after=-1, kinds=items)

    assert isinstance(read, Batch)
    runs = [event for event in read.events if isinstance(event, ItemRun)]
    assert items_of(runs[0])[0] == b"0"


WRITER = "application_name = 'apothic writer' AND datname = current_database()"
KILL = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WRITER}"
WAITING = f"SELECT count(*) FROM pg_stat_activity WHERE {WRITER} AND wait_event_type = 'Lock'"


async def test_a_store_that_goes_away_while_items_wait_loses_and_repeats_none(cloud, client):
    worker, job, attempt = await begin(cloud)
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job.job)
        for ordinal in range(10):
            worker.yield_items(attempt, ordinal, b"%d" % ordinal)
        async with cloud.inner.database.system_unit() as watcher:
            while not await watcher.fetchval(WAITING):
                pass
            await watcher.execute(KILL)
        for ordinal in range(10, 20):
            worker.yield_items(attempt, ordinal, b"%d" % ordinal)
        worker.succeed(attempt)
    outcome = await ended(job)

    assert outcome.status is JobStatus.SUCCEEDED
    items = [data["item"] for _, kind, data in await stream(client, job.job) if kind == "job.stream_item"]
    assert items == list(range(20))
    assert [ordinal for _, _, ordinal in await stored(cloud, job.job)] == list(range(20))
    assert cloud.inner.writer.counters.reconnects == 1


async def test_another_orgs_items_are_not_found(cloud):
    worker, job, attempt = await begin(cloud)
    worker.yield_items(attempt, 0, b"1")
    await taken(worker)

    other = AsgiClient(cloud.asgi, cloud.other_key)
    answer = await other.request("GET", f"/v1/jobs/jobs:{job.job}/events?items=packed", headers=SSE)

    assert answer.status == 404


@pytest.mark.parametrize("has_ended", [False, True])
async def test_items_of_a_function_that_yields_none_are_refused(cloud, client, has_ended):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    if has_ended:
        worker.succeed(attempt, b"1")
        await ended(job)

    answer = await client.request("GET", f"/v1/jobs/jobs:{job.job}/events?items=packed", headers=SSE)

    page = await client.request("GET", f"/v1/jobs/jobs:{job.job}/events?types=job.stream_item,job.end")

    assert (answer.status, answer.json["code"]) == (422, "not_a_generator")
    assert "yields no items" in answer.json["detail"]
    assert page.json["next_ordinal"] is None


@pytest.mark.parametrize(("query", "headers"), [("?items=loose", SSE), ("?items=packed", {})])
async def test_a_wrong_wish_about_items_is_refused(cloud, client, query, headers):
    _, job, _ = await begin(cloud)

    answer = await client.request("GET", f"/v1/jobs/jobs:{job.job}/events{query}", headers=headers)

    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["query", "items"])
