"""Event streams over the face: order, resuming, snapshots, filters, resets, places given back."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from apothic.wire.limits import LOG_PAGE_LINES_MAX
from apothic_server.domain.streams import StreamKind, StreamRef
from apothic_server.loops.retention import BYTES_MAX
from apothic_server.services.streams import WATCHERS_PER_ORG_MAX
from apothic_server.services.turns import PER_S
from apothic_server.store.streams import Trim, trim
from apothic_server.testing.asgi import AsgiClient, CutError
from apothic_server.testing.cloud import ScriptedWorker, ended
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio
KINDS = ["job.queued", "job.status", "job.running", "job.log", "job.log", "job.result", "job.end"]


@pytest.fixture
async def client(cloud):
    return AsgiClient(cloud.asgi, cloud.key)


async def finished_job(cloud, lines=("one", "two"), result=b'{"n":1}'):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    worker.log(attempt, *lines)
    worker.succeed(attempt, result)
    await ended(job)
    return job.job


def parse(body):
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


async def stream(client, job, query=""):
    answer = await client.request("GET", f"/v1/jobs/jobs:{job}/events{query}", headers={"accept": "text/event-stream"})
    assert answer.status == 200
    return parse(answer.body)


@guarantee("G5.2", "watch_model_check")
async def test_a_finished_stream_is_read_whole_and_resumes_after_every_index(cloud, client):
    job = await finished_job(cloud)

    whole = await stream(client, job)

    assert [(index, kind) for index, kind, _ in whole] == list(enumerate(KINDS))
    for after in range(-1, len(KINDS) - 1):
        assert await stream(client, job, f"?after={after}") == whole[after + 1 :]


async def test_a_result_event_carries_the_value(cloud, client):
    job = await finished_job(cloud)

    [(_, _, data)] = await stream(client, job, "?types=job.result")

    assert data == {"attempt": 1, "encoding": "json", "python": None, "result": {"n": 1}}


async def test_line_breaks_in_a_result_do_not_break_the_frames(cloud, client):
    job = await finished_job(cloud, result=b'{"n":\r\n [1,\n2]}')

    [(_, _, data)] = await stream(client, job, "?types=job.result")

    assert data["result"] == {"n": [1, 2]}


@guarantee("G5.2", "watch_model_check")
async def test_filters_hide_and_never_renumber(cloud, client):
    job = await finished_job(cloud)

    statuses = await stream(client, job, "?types=job.status,job.end")

    assert [(index, kind) for index, kind, _ in statuses] == [
        (0, "job.queued"),
        (1, "job.status"),
        (2, "job.running"),
        (6, "job.end"),
    ]


@guarantee("G5.3", "snapshot_then_exactly_next")
async def test_a_snapshot_is_followed_by_exactly_the_next_index(cloud, client):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    worker.log(attempt, "before")
    async with open_stream(client, job.job, "?snapshot=true") as exchange:
        head = await exchange.piece()
        worker.log(attempt, "after")
        worker.succeed(attempt)
        tail = (await exchange.answer()).body

    first, *rest = parse(head + tail)
    assert first[1] == "job.snapshot"
    assert first[2]["index"] == first[0]
    assert [index for index, _, _ in rest] == list(range(first[0] + 1, first[0] + 1 + len(rest)))
    assert rest[-1][1] == "job.end"


async def test_a_live_stream_delivers_as_things_happen(cloud, client):
    await cloud.deploy()
    job = await cloud.spawn()
    async with open_stream(client, job.job) as exchange:
        head = await exchange.piece()
        worker = await ScriptedWorker(cloud).connect()
        attempt = await worker.take()
        worker.log(attempt, "one", "two")
        worker.succeed(attempt)
        events = parse(head + (await exchange.answer()).body)

    assert [(index, kind) for index, kind, _ in events] == list(enumerate(KINDS))


@guarantee("G5.5", "reset_not_silence")
@pytest.mark.parametrize("after", [7, 10_000, 2**62])
async def test_an_index_beyond_the_newest_gets_one_reset_with_a_snapshot(cloud, client, after):
    job = await finished_job(cloud)

    events = await stream(client, job, f"?after={after}")

    [(index, kind, data)] = events
    assert (index, kind) == (6, "job.reset")
    assert (data["requested_index"], data["oldest_index"], data["latest_index"]) == (after, 0, 6)
    assert data["snapshot"]["job"]["status"] == "succeeded"
    assert data["snapshot"]["result"] == {"n": 1}


@guarantee("G5.5", "reset_not_silence")
@guarantee("G5.4", "retention_floor")
async def test_events_that_were_trimmed_are_answered_by_a_reset_and_the_end_stays(cloud, client):
    job = await finished_job(cloud)
    cloud.clock.advance(7 * 86_400 + 1)
    await cloud.inner.retention.step()

    events = await stream(client, job, "?after=0&types=job.end")

    assert [kind for _, kind, _ in events] == ["job.reset"]
    assert [kind for _, kind in await cloud.events(job)] == ["job.result", "job.end"]


@guarantee("G5.4", "retention_floor")
async def test_a_live_stream_keeps_its_newest_ten_thousand_events(cloud, client):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    for start in range(0, 10_500, LOG_PAGE_LINES_MAX):
        worker.log(attempt, *[str(number) for number in range(start, min(start + LOG_PAGE_LINES_MAX, 10_500))])
    # Records of one job are written in order, so the answer to a cancel means that all lines are on disk.
    await cloud.services.jobs.cancel(cloud.actor, job.job)

    await cloud.inner.retention.step()
    kept = [index for index, _ in await cloud.events(job.job)]

    assert kept == list(range(10_504 - 10_000, 10_504))


async def test_a_page_of_json_is_the_fallback_of_the_stream(cloud, client):
    job = await finished_job(cloud)

    first = await client.request("GET", f"/v1/jobs/jobs:{job}/events?limit=3")
    rest = await client.request("GET", f"/v1/jobs/jobs:{job}/events?after={first.json['last_index']}")

    assert [event["event"] for event in first.json["events"] + rest.json["events"]] == KINDS
    assert (first.json["is_final"], rest.json["is_final"]) == (False, True)


async def test_last_event_id_resumes_as_after_does(cloud, client):
    job = await finished_job(cloud)
    headers = {"accept": "text/event-stream", "last-event-id": "4"}

    answer = await client.request("GET", f"/v1/jobs/jobs:{job}/events", headers=headers)

    assert [index for index, _, _ in parse(answer.body)] == [5, 6]


@pytest.mark.parametrize("query", ["?types=job.nothing", "?types=", "?after=x", "?after=-2", "?snapshot=1", "?odd=1"])
async def test_bad_queries_are_refused(cloud, client, query):
    job = await finished_job(cloud)

    answer = await client.request("GET", f"/v1/jobs/jobs:{job}/events{query}")

    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert cloud.services.streams.watchers == 0


async def test_places_are_given_back_and_bounded(cloud, client):
    job = await finished_job(cloud)
    streams = cloud.services.streams
    watches = []
    for _ in range(WATCHERS_PER_ORG_MAX):
        watches.append(await streams.watch(cloud.actor, StreamRef(StreamKind.JOB, job)))
        cloud.clock.advance(1 / PER_S)

    refused = await client.request("GET", f"/v1/jobs/jobs:{job}/events")
    for watch in watches:
        watch.close()
        watch.close()
    await stream(client, job)

    assert (refused.status, refused.json["code"]) == (429, "too_many_watchers")
    assert streams.watchers == 0


@guarantee("G5.7", "watch_slots_not_leaked")
async def test_a_client_that_leaves_gives_its_place_back_at_once(cloud, client):
    await cloud.deploy()
    job = await cloud.spawn()

    for _ in range(500):
        async with open_stream(client, job.job) as exchange:
            await exchange.start()

    assert cloud.services.streams.watchers == 0


@guarantee("G5.6", "lost_notify_still_delivers")
async def test_without_any_wake_up_events_come_with_the_next_reading(cloud, client):
    await cloud.deploy()
    cloud.inner.board.hints.changed = lambda _: None
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    watch = await cloud.services.streams.watch(cloud.actor, StreamRef(StreamKind.JOB, job.job))
    batch = await watch.next(-1, timeout_s=0.0)
    async with asyncio.timeout(30):  # a watcher that reads only when it is woken is asked for ever
        while batch.last_index < 2:
            batch = await watch.next(batch.last_index, timeout_s=0.0)

    worker.succeed(attempt)
    await ended(job)
    later = await watch.next(2, timeout_s=0.0)
    watch.close()

    assert [event.kind for event in later.events] == ["job.result", "job.end"]


def open_stream(client, job, query=""):
    target = f"/v1/jobs/jobs:{job}/events{query}"
    return client.open("GET", target, headers={"accept": "text/event-stream"})


async def chatty_job(cloud, lines, size):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    for start in range(0, lines, 50):
        worker.log(attempt, *[f"{number:06}".ljust(size, "x") for number in range(start, min(start + 50, lines))])
    # Records of one job are written in order, so the answer to a cancel means that all lines are on disk.
    await cloud.services.jobs.cancel(cloud.actor, job.job)
    return job.job


@guarantee("G5.7", "slow_watcher_bounded")
async def test_a_reader_is_given_small_pieces_however_long_the_lines_are(cloud, client):
    job = await chatty_job(cloud, 60, 16_000)

    for _ in range(2):  # from the store, then from what watchers share in memory
        async with open_stream(client, job) as holds_the_tail, open_stream(client, job) as exchange:
            await holds_the_tail.piece()
            pieces = []
            while sum(map(len, pieces)) < 60 * 16_000:
                pieces.append(await exchange.piece())
        events = parse(b"".join(pieces))
        assert max(map(len, pieces)) < 128 * 1024
        assert [index for index, _, _ in events] == list(range(len(events)))
        assert len([kind for _, kind, _ in events if kind == "job.log"]) == 60


@guarantee("G5.7", "slow_watcher_bounded")
async def test_a_reader_holds_little_at_once_however_long_the_lines_are(cloud):
    job = await chatty_job(cloud, 60, 16_000)
    watch = await cloud.services.streams.watch(cloud.actor, StreamRef(StreamKind.JOB, job))

    for _ in range(2):  # from the store, then from what watchers share in memory
        held, last = [], -1
        async with asyncio.timeout(30):
            while sum(held) < 60 * 16_000:
                batch = await watch.next(last, timeout_s=0.0)
                held.append(sum(len(event.data.get("line", "")) for event in batch.events))
                last = batch.last_index
        assert max(held) < 128 * 1024
    watch.close()


@guarantee("G5.7", "slow_watcher_bounded")
async def test_a_reader_that_takes_nothing_is_cut_off_and_its_place_is_free(cloud, client):
    job = await chatty_job(cloud, 60, 16_000)
    cloud.asgi.reader_idle_s = 0.05
    taken = []

    async def app(scope, receive, send):
        async def take_little(message):
            taken.append(message)
            if len(taken) > 2:
                await asyncio.Event().wait()
            await send(message)

        await cloud.asgi(scope, receive, take_little)

    with capture_logs() as logs, pytest.raises(CutError):
        await AsgiClient(app, cloud.key).request(
            "GET", f"/v1/jobs/jobs:{job}/events", headers={"accept": "text/event-stream"}
        )

    assert [message["type"] for message in taken] == ["http.response.start", *["http.response.body"] * 2]
    [told] = [line for line in logs if line.get("op") == "get_events"]
    assert (told["event"], told["log_level"], told["status"]) == ("request.done", "info", 499)
    assert cloud.services.streams.watchers == 0


@guarantee("G5.4", "retention_floor")
async def test_a_live_stream_keeps_its_newest_sixteen_mebibytes(cloud, client):
    job = await chatty_job(cloud, 1_200, 16_000)

    await cloud.inner.retention.step()
    kept = await cloud.events(job)
    await cloud.inner.retention.step()

    size = len(json.dumps({"line": "x" * 16_000, "time": 0.0, "stream": "stdout"}))
    assert BYTES_MAX - 2 * size < len([kind for _, kind in kept if kind == "job.log"]) * size <= BYTES_MAX
    assert [index for index, _ in kept] == list(range(kept[0][0], 1_204))
    assert await cloud.events(job) == kept
    [event] = (await client.request("GET", f"/v1/jobs/jobs:{job}/events?after=3&limit=1")).json["events"]
    assert (event["event"], event["data"]["oldest_index"]) == ("job.reset", kept[0][0])


@guarantee("G5.8", "follow_across_rotation")
async def test_a_follower_behind_the_rotation_is_told_and_goes_on(cloud, client):
    await cloud.deploy()
    worker = await ScriptedWorker(cloud).connect()
    job = await cloud.spawn()
    attempt = await worker.take()
    async with open_stream(client, job.job, "?types=job.log") as exchange:
        worker.log(attempt, "before")
        assert [data["line"] for _, _, data in parse(await exchange.piece())] == ["before"]
    async with cloud.inner.database.system_unit() as unit:
        await trim(unit, Trim(job.job, cloud.inner.org, 4, is_job=True))

    async with open_stream(client, job.job, "?types=job.log&after=1") as exchange:
        [(_, kind, data)] = parse(await exchange.piece())
        worker.log(attempt, "after")
        [(_, _, line)] = parse(await exchange.piece())

    assert (kind, data["requested_index"], data["oldest_index"]) == ("job.reset", 1, 4)
    assert line["line"] == "after"
