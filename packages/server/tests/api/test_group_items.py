"""Items of groups as jobs: what each of them says of itself, with a row of its own and without."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import CHUNK_ITEMS_MAX
from apothic.wire.values import OUTCOME_TYPE
from apothic_server.api.runtime.document import read_document
from apothic_server.services import ended_chunks
from apothic_server.services.item_arguments import call_of
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import Outcomes, make_group

pytestmark = pytest.mark.anyio

CONTRACT = Contract(json.loads(read_document()))


@pytest.fixture
async def client(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1))
    return AsgiClient(cloud.asgi, cloud.key)


@pytest.fixture
async def group(cloud, client):
    """Ten items: a chunk of four, an item by itself, a chunk that runs, one that was cancelled, and two that wait."""
    made = await make_group(cloud, client, *range(10))
    await made.row(0, "succeeded", "a", ValueError("python_mismatch"), ValueError("exception"), "own", items=4)
    await made.row(3, "failed", error="exception", overlays="S")
    await made.row(4, "succeeded", 44)
    await made.row(5, "running", items=2)
    await made.row(7, "cancelled", items=1)
    return made


async def get(client, group, number, path=""):
    answer = await client.request("GET", f"/v1/jobs/jobs:{group.key}.{number}{path}")
    CONTRACT.check({"": "get_job", "/logs": "get_logs", "/events": "get_events"}.get(path, "get_outcome"), answer)
    return answer


async def test_an_item_is_a_job_whoever_tells_of_it(client, group):
    found = [(await get(client, group, number)).json for number in range(10)]

    assert [job["status"] for job in found] == [
        "succeeded", "failed", "retrying", "failed", "succeeded", "running", "running", "cancelled", "queued", "queued",
    ]  # fmt: skip
    assert [job["job_id"] for job in found] == [f"jobs:{group.key}.{number}" for number in range(10)]
    assert [job["attempt"] for job in found] == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    codes = [(job["error"] or {}).get("code") for job in found]
    assert codes[:5] == [None, "python_mismatch", "exception", "exception", None]


async def test_the_last_item_of_the_largest_chunk_is_found(cloud, client):
    group = await make_group(cloud, client, *range(CHUNK_ITEMS_MAX))
    await group.add(CHUNK_ITEMS_MAX, 7)
    await group.row(0, "succeeded", *range(CHUNK_ITEMS_MAX), items=CHUNK_ITEMS_MAX)
    await group.row(CHUNK_ITEMS_MAX, "succeeded", 77)

    last, own = [await get(client, group, CHUNK_ITEMS_MAX - 1 + number, "/outcome") for number in (0, 1)]

    assert (last.json["result"], own.json["result"]) == (CHUNK_ITEMS_MAX - 1, 77)
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes?from={CHUNK_ITEMS_MAX - 1}") as exchange:
        await exchange.start()
        assert await Outcomes(exchange).take(2) == {CHUNK_ITEMS_MAX - 1: CHUNK_ITEMS_MAX - 1, CHUNK_ITEMS_MAX: 77}


async def test_items_of_an_ended_group_are_told_the_same_when_they_are_read_again(cloud, client, group, monkeypatch):
    monkeypatch.setattr(ended_chunks, "KEPT_MAX", 2)
    await group.end("cancelled")
    paths = [(number, path) for number in range(10) for path in ("", "/outcome?wait_s=0", "/events")]
    stranger = AsgiClient(cloud.asgi, cloud.other_key)

    first = [(await get(client, group, *one)).json for one in paths]
    again = [(await get(client, group, *one)).json for one in reversed(paths)]
    strange = [(await stranger.request("GET", f"/v1/jobs/jobs:{group.key}.{number}")).status for number in range(10)]

    assert again == first[::-1]
    assert [job["status"] for job in first[::3]] == [
        "succeeded", "failed", "failed", "failed", "succeeded", "running", "running", "cancelled", *["cancelled"] * 2,
    ]  # fmt: skip
    assert [one["result"] for one in first[1::3][:5]] == ["a", None, None, None, 44]
    assert strange == [404] * 10


@pytest.mark.parametrize("number", ["10", "00", "0-4", "-1", "x", "0.0", "99999999"])
async def test_what_is_no_item_is_not_found(client, group, number):
    answers = [await client.request("GET", f"/v1/jobs/jobs:{group.key}.{number}{path}") for path in ("", "/outcome")]

    assert [answer.status for answer in answers] == [404, 404]


async def test_items_of_another_org_are_not_found(cloud, group):
    stranger = AsgiClient(cloud.asgi, cloud.other_key)

    for path in ("", "/outcome", "/logs", "/events"):
        for number in (0, 4, 8):
            assert (await stranger.request("GET", f"/v1/jobs/jobs:{group.key}.{number}{path}")).status == 404


async def test_outcomes_of_items_are_those_of_jobs(client, group):
    ended = [(await get(client, group, number, "/outcome?wait_s=0")) for number in (0, 1, 3, 4, 7)]
    open_ = [(await get(client, group, number, "/outcome?wait_s=0")).status for number in (2, 5, 8)]

    assert [answer.json["status"] for answer in ended] == ["succeeded", "failed", "failed", "succeeded", "cancelled"]
    assert [answer.json["result"] for answer in ended] == ["a", None, None, 44, None]
    assert open_ == [202, 202, 202]


async def test_who_waits_for_an_item_is_told_when_its_chunk_ends(cloud, client, group):
    cloud.start_loop("outcomes")
    waiting = asyncio.ensure_future(get(client, group, 8, "/outcome"))
    async with client.open("GET", f"/v1/jobs/jobs:{group.key}.9/outcome", headers={"accept": OUTCOME_TYPE}) as exchange:
        await exchange.start()
        assert b"accepted" in await exchange.piece()
        await group.row(8, "succeeded", 88, 99, items=2)
        async with asyncio.timeout(10):
            last = await exchange.piece()
            answer = await waiting

    assert (answer.json["status"], answer.json["result"]) == ("succeeded", 88)
    assert last.endswith(b"99")


async def test_the_stream_of_an_item_is_told_at_its_end(client, group):
    ended = (await get(client, group, 0, "/events")).json
    failed = (await get(client, group, 1, "/events")).json
    waiting = (await get(client, group, 8, "/events")).json
    running = (await get(client, group, 5, "/events")).json

    kinds = ["job.queued", "job.status", "job.running", "job.result", "job.end"]
    assert [event["event"] for event in ended["events"]] == kinds
    assert [event["index"] for event in ended["events"]] == [0, 1, 2, 3, 4]
    assert (ended["events"][3]["data"]["result"], ended["is_final"]) == ("a", True)
    assert [event["event"] for event in failed["events"]][3:] == ["job.error", "job.end"]
    for page in (waiting, running):
        assert ([event["event"] for event in page["events"]], page["is_final"]) == (["job.queued"], False)


async def test_a_watcher_of_an_item_sees_its_end(client, group):
    path = f"/v1/jobs/jobs:{group.key}.9/events"
    async with client.open("GET", path, headers={"accept": "text/event-stream"}) as exchange:
        first = await exchange.piece()
        await group.row(8, "succeeded", 88, 99, items=2)
        async with asyncio.timeout(10):
            rest = await exchange.answer()

    assert first.startswith(b"id: 0\nevent: job.queued\n")
    assert rest.body.count(b"\nevent: ") == 4
    assert b'"result":99' in rest.body


async def test_an_index_that_is_not_told_is_answered_by_a_reset(client, group):
    page = (await client.request("GET", f"/v1/jobs/jobs:{group.key}.0/events?after=50")).json

    (reset,) = page["events"]
    assert (reset["event"], reset["data"]["latest_index"], reset["data"]["snapshot"]["result"]) == ("job.reset", 4, "a")


async def test_items_have_no_lines_unless_they_wrote_some(client, group):
    pages = [(await get(client, group, number, "/logs")).json for number in (0, 8)]

    assert [(page["lines"], page["is_final"]) for page in pages] == [([], True), ([], False)]


async def test_an_ended_item_is_called_again_as_a_job_of_its_own(cloud, client, group):
    answer = await client.request("POST", f"/v1/jobs/jobs:{group.key}.1/retry")
    again = (await client.request("GET", f"/v1/jobs/{answer.json['job_id']}")).json
    refused = await client.request("POST", f"/v1/jobs/jobs:{group.key}.8/retry")

    assert answer.status == 202
    assert again["retry_of"] == f"jobs:{group.key}.1"
    async with cloud.inner.database.system_unit() as unit:
        key = again["job_id"].partition(":")[2]
        assert await unit.fetchval("SELECT arguments FROM jobs WHERE id = $1", key) == b"[[1],{}]"
    assert (refused.status, refused.json["code"]) == (409, "job_not_ended")


async def test_an_item_that_has_ended_keeps_its_status_when_it_is_cancelled(client, group):
    answers = [await client.request("POST", f"/v1/jobs/jobs:{group.key}.{number}/cancel") for number in (0, 3, 7)]

    assert [answer.json["status"] for answer in answers] == ["succeeded", "failed", "cancelled"]


async def test_lists_show_items_with_rows_and_never_chunks(cloud, client, group):
    alone = await cloud.spawn()
    await make_group(cloud, client, 1)

    of_group = (await client.request("GET", f"/v1/jobs?group={group.id}")).json
    everything = (await client.request("GET", "/v1/jobs")).json
    wrong = await client.request("GET", "/v1/jobs?group=jobs:x")

    own = [f"jobs:{group.key}.4", f"jobs:{group.key}.3"]
    assert [item["job_id"] for item in of_group["items"]] == own
    assert [item["job_id"] for item in everything["items"]] == [f"jobs:{alone.job}", *own]
    assert (wrong.status, wrong.json["detail"][0]["type"]) == (422, "group_invalid")


async def test_lists_of_items_go_on_page_by_page(client, group):
    first = (await client.request("GET", f"/v1/jobs?group={group.id}&limit=1")).json
    second = (await client.request("GET", f"/v1/jobs?group={group.id}&limit=1&cursor={first['next_cursor']}")).json

    assert [first["items"][0]["job_id"], second["items"][0]["job_id"]] == [f"jobs:{group.key}.4", f"jobs:{group.key}.3"]


async def test_numbers_of_an_app_count_items(client, group):
    stats = (await client.request("GET", "/v1/apps/shop/stats")).json

    (work,) = stats["functions"]
    assert work["jobs"] == 8
    assert {status: count for status, count in work["statuses"].items() if count} == {
        "succeeded": 2, "failed": 3, "running": 2, "cancelled": 1,
    }  # fmt: skip


values = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values, st.integers(2, 5))
def test_an_input_becomes_the_arguments_of_a_call_without_being_read(value, protocol):
    entry = b"p" + pickle.dumps(value, protocol=protocol)

    assert pickle.loads(call_of(entry, None, spread=False).data) == [[value], {}]


@given(st.lists(values, max_size=4), st.booleans())
def test_spread_inputs_become_all_the_arguments(items, is_tuple):
    entry = b"p" + pickle.dumps(tuple(items) if is_tuple else items, protocol=5)
    as_json = call_of(b"j[1,2]", "3.11", spread=True)

    assert pickle.loads(call_of(entry, None, spread=True).data) == [items, {}]
    assert (as_json.data, as_json.encoding, as_json.python) == (b"[[1,2],{}]", "json", "3.11")
