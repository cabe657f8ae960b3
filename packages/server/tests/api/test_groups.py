"""Groups over the face: made, filled, closed, looked at; and the outcomes of their items."""

from __future__ import annotations

import asyncio
import json

import pytest

from apothic.wire import chunks
from apothic.wire.functions import FunctionSpec
from apothic.wire.limits import CHUNK_INPUTS_MAX, GROUP_WAITING_BYTES_MAX, KIB, VALUE_MAX
from apothic_server.api.runtime.document import read_document
from apothic_server.testing.asgi import AsgiClient
from apothic_server.testing.contract import Contract
from apothic_server.testing.groups import Outcomes, make_group, packed

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}

CONTRACT = Contract(json.loads(read_document()))


@pytest.fixture
async def client(cloud):
    await cloud.deploy()
    return AsgiClient(cloud.asgi, cloud.key)


def codes(*answers):
    return [(answer.status, answer.json.get("code")) for answer in answers]


async def test_a_group_is_made_filled_and_closed(cloud, client):
    group = await make_group(cloud, client, stop_after=3)
    first = await group.add(0, 1, 2, 3)
    again = await group.add(1, 2, 3)
    more = await group.add(3, 4)
    closed = await group.post("close", total=4)
    repeated = await group.post("close", total=4)
    late = await group.add(3, 4)
    got = await group.get()

    assert [answer.json["items"] for answer in (first, again, more, late)] == [3, 3, 4, 4]
    assert closed.json == repeated.json == got
    assert (got["items"], got["total"], got["status"], got["stop_after"]) == (4, 4, "running", 3)
    assert (got["app"], got["function_name"], got["counts"]["queued"]) == ("shop", "work", 4)
    CONTRACT.check("close_group", closed)


async def test_what_does_not_fit_the_group_is_refused_and_changes_nothing(cloud, client):
    group = await make_group(cloud, client, "a", "b")
    before = await group.get()

    gap, within = await group.add(3, "d"), await group.add(1, "b", "c")
    wrong = await group.post("close", total=3)
    unpacked = await group.add(2, data=b"\0\0\0\5abc", count=1)
    miscounted = await group.add(2, data=packed("c", "d"), count=1)
    large = await group.add(2, data=chunks.pack([b"j" + b"1" * VALUE_MAX + b"1"]), count=1)
    many = await group.add(2, data=chunks.pack([b"j1", b"j" + b"1" * CHUNK_INPUTS_MAX]), count=2)

    assert codes(gap, within, wrong) == [(409, "group_gap")] * 3
    assert codes(unpacked, miscounted, many) == [(422, "invalid")] * 3
    assert codes(large) == [(413, "value_too_large")]
    assert [answer.json["detail"][0]["type"] for answer in (unpacked, miscounted, many)] == [
        "chunk_invalid", "chunk_invalid", "too_long",
    ]  # fmt: skip
    assert await group.get() == before


async def test_a_closed_or_cancelled_group_takes_no_more_items(cloud, client):
    closed, cancelled = await make_group(cloud, client, 1), await make_group(cloud, client, 1)
    await closed.post("close", total=1)
    stopped = await cancelled.post("cancel", items=None)

    refused = [await closed.add(1, 2), await closed.post("close", total=2)]
    refused += [await cancelled.add(1, 2), await cancelled.post("close", total=1)]

    assert stopped.json["status"] == "cancelling"
    assert codes(*refused) == [(409, "group_closed")] * 4


@pytest.mark.parametrize(("headers", "body"), [({}, b""), (JSON, b"{}"), (JSON, b'{"items":null}')])
async def test_a_group_is_cancelled_with_a_body_and_without(cloud, client, headers, body):
    group = await make_group(cloud, client, 1)

    answer = await client.request("POST", f"/v1/groups/{group.id}/cancel", headers=headers, body=body)
    untold = await client.request("POST", f"/v1/groups/{group.id}/cancel", body=b"{}")

    assert (answer.status, answer.json["status"]) == (200, "cancelling")
    assert (untold.status, (await group.get())["status"]) == (415, "cancelling")


async def test_a_large_item_lies_where_large_values_do(cloud, client):
    group = await make_group(cloud, client)

    added = await group.add(0, "x" * 100 * KIB)

    assert added.json == {"items": 1}
    async with cloud.inner.database.system_unit() as unit:
        row = await unit.fetchrow("SELECT data, blob, size_bytes FROM group_inputs")
    assert (row["data"], row["size_bytes"]) == (None, 100 * KIB + 7)
    assert await cloud.inner.services.archives._blobs.exists(cloud.inner.org, row["blob"])


async def test_inputs_beyond_what_may_wait_are_refused_until_some_were_given_out(cloud, client):
    group = await make_group(cloud, client, 1, 2)
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE groups SET uploaded_bytes = uploaded_bytes + $1", GROUP_WAITING_BYTES_MAX - 20)
        await unit.execute("UPDATE group_inputs SET end_bytes = end_bytes + $1", GROUP_WAITING_BYTES_MAX - 20)

    full = await group.add(2, "too many bytes")
    await group.row(0, "running", items=2)
    room = await group.add(2, "too many bytes")

    assert codes(full) == [(429, "group_full")]
    assert full.headers["retry-after"] == "1"
    assert room.json == {"items": 3}


async def test_a_group_is_found_again_by_its_key(cloud, client):
    group = await make_group(cloud, client, 1, key="mine", spread=True)
    await cloud.deploy("other")

    same = await make_group(cloud, client, key="mine", spread=True)
    elsewhere = await make_group(cloud, client, app="other", key="mine")
    path = "/v1/apps/shop/functions/work/groups"
    differs = [await client.request("POST", path, json={"key": "mine", **more}) for more in ({}, {"stop_after": 1})]

    assert same.id == group.id != elsewhere.id
    assert codes(*differs) == [(409, "group_differs")] * 2


async def test_two_requests_with_one_key_at_once_make_one_group(cloud, client):
    found = await asyncio.gather(*[make_group(cloud, client, key="mine") for _ in range(10)])

    assert len({group.id for group in found}) == 1


async def test_unfinished_groups_of_a_function_are_bounded_but_one_of_them_is_always_found(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_pending_tasks=1))
    client = AsgiClient(cloud.asgi, cloud.key)
    group = await make_group(cloud, client, key="mine")

    full = await client.request("POST", "/v1/apps/shop/functions/work/groups", json={})
    found = await make_group(cloud, client, key="mine")
    await group.end("cancelled")
    room = await client.request("POST", "/v1/apps/shop/functions/work/groups", json={})

    assert codes(full) == [(429, "too_many_pending")]
    assert found.id == group.id
    assert room.status == 201


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"spread": 1}, "wrong_type"),
        ({"key": ""}, "out_of_range"),
        ({"key": "k" * 129}, "out_of_range"),
        ({"key": 1}, "wrong_type"),
        ({"key": "a\0"}, "text_invalid"),
        ({"stop_after": 0}, "out_of_range"),
        ({"stop_after": True}, "wrong_type"),
        ({"more": 1}, "unknown_field"),
    ],
)
async def test_a_group_that_is_told_wrongly_is_refused(client, body, kind):
    answer = await client.request("POST", "/v1/apps/shop/functions/work/groups", json=body)

    assert (answer.status, answer.json["detail"][0]["type"]) == (422, kind)


@pytest.mark.parametrize(
    ("query", "name"),
    [("?count=1", "first"), ("?first=0", "count"), ("?first=0&count=2001", "count"), ("?first=-1&count=1", "first"),
     ("?first=0&count=1&python=three", "python"), ("?first=9999999&count=2", "count")],
)  # fmt: skip
async def test_inputs_that_are_told_wrongly_are_refused(cloud, client, query, name):
    group = await make_group(cloud, client)
    path = f"/v1/groups/{group.id}/inputs{query}"

    answer = await client.request("POST", path, headers={"content-type": "application/octet-stream"}, body=packed(1, 2))

    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["query", name])


async def test_inputs_that_another_python_made_are_refused(cloud, client):
    group = await make_group(cloud, client)

    other, same = await group.add(0, 1, query="&python=3.99"), await group.add(0, 1, query="&python=3.11")

    assert codes(other) == [(422, "python_mismatch")]
    assert same.json == {"items": 1}


async def test_outcomes_come_by_number_then_as_they_end_and_the_end_is_told(cloud, client):
    group = await make_group(cloud, client, *range(6))
    await group.row(0, "succeeded", 0)
    await group.row(1, "succeeded", 10, ValueError("exception"), items=2)
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes") as exchange:
        outcomes = Outcomes(exchange)
        known = await outcomes.take(3)
        await group.row(5, "succeeded", 50)
        last = await outcomes.take(1)
        await group.row(3, "succeeded", 30, 40, items=2)
        middle = await outcomes.take(2)
        await group.post("close", total=6)
        await group.end("failed")
        told = await outcomes.end()

    assert exchange.headers["content-type"] == "application/vnd.apothic.outcomes"
    assert (known, last, middle) == ({0: 0, 1: 10, 2: "exception"}, {5: 50}, {3: 30, 4: 40})
    assert (told["id"], told["status"]) == (group.id, "failed")
    assert [head.get("first") for head in outcomes.heads] == [0, 1, 5, 3, None]


async def test_a_row_of_an_item_counts_before_the_entry_of_its_chunk(cloud, client):
    group = await make_group(cloud, client, *range(5))
    await group.row(2, "retrying")
    await group.row(0, "succeeded", 0, "early", ValueError("exception"), 30, "early", items=5)
    await group.row(1, "succeeded", "own")
    await group.row(4, "cancelled")
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes") as exchange:
        outcomes = Outcomes(exchange)
        found = await outcomes.take(4)
        async with cloud.inner.database.system_unit() as unit:
            await unit.execute(
                "UPDATE jobs SET status = 'failed', path = 'ysrF', finished_at = created_at, "
                "error = '{\"type\": \"\", \"message\": \"\", \"code\": \"own\"}' WHERE id = $1", f"{group.key}.2",
            )  # fmt: skip
        cloud.inner.board.hints.changed(f"{group.key}.2")
        late = await outcomes.take(1)

    assert found == {0: 0, 1: "own", 3: 30, 4: "cancelled"}
    assert late == {2: "own"}


async def test_a_failure_that_is_tried_again_is_no_outcome(cloud):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_retries=1))
    client = AsgiClient(cloud.asgi, cloud.key)
    group = await make_group(cloud, client, 0, 1)
    await group.row(0, "succeeded", 0, ValueError("exception"), items=2)
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes") as exchange:
        outcomes = Outcomes(exchange)
        early = await outcomes.take(1)
        await group.row(1, "succeeded", "second try")
        late = await outcomes.take(1)

    assert (early, late) == ({0: 0}, {1: "second try"})


async def test_items_that_never_began_end_with_their_group(cloud, client):
    group = await make_group(cloud, client, *range(1200 // 400))
    for first in range(3, 1203, 400):
        await group.add(first, *range(400))
    await group.row(0, "succeeded", 0)
    await group.row(1, "cancelled", 1, items=5)
    await group.end("cancelled")

    async with client.open("GET", f"/v1/groups/{group.id}/outcomes?from=1") as exchange:
        outcomes = Outcomes(exchange)
        found = await outcomes.take(1202)
        await outcomes.end()

    assert found == {1: 1, **dict.fromkeys(range(2, 1203), "cancelled")}


async def test_outcomes_are_read_on_from_any_item_page_by_page(cloud, client):
    group = await make_group(cloud, client, *range(30))
    blob = "x" * 90 * KIB
    for item in range(30):
        await group.row(item, "succeeded", f"{item}{blob}")
    await group.end("succeeded")

    async with client.open("GET", f"/v1/groups/{group.id}/outcomes?from=7") as exchange:
        outcomes = Outcomes(exchange)
        found = await outcomes.take(23)
        await outcomes.end()

    assert found == {item: f"{item}{blob}" for item in range(7, 30)}
    assert len(outcomes.heads) == 3


async def test_a_hint_that_is_lost_costs_seconds(cloud, client):
    group = await make_group(cloud, client, 0)
    cloud.inner.services.groups.readers.reread_s = 0.02
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes") as exchange:
        await exchange.start()
        cloud.inner.board.hints.changed = lambda _: None
        await group.row(0, "succeeded", 5)
        await group.end("succeeded")

        outcomes = Outcomes(exchange)
        assert await outcomes.take(1) == {0: 5}
        await outcomes.end()


async def test_a_reader_that_leaves_gives_its_place_back(cloud, client):
    group = await make_group(cloud, client, 0)
    async with client.open("GET", f"/v1/groups/{group.id}/outcomes") as exchange:
        await exchange.start()
        readers = cloud.inner.services.groups.readers
        assert list(readers._readers) == [group.key]
        exchange.disconnect()
        while await exchange.piece() is not None:
            pass

    assert (readers._readers, readers._counts) == ({}, {})


async def test_groups_are_listed_newest_first_page_by_page(cloud, client):
    await cloud.deploy("other")
    made = [(await make_group(cloud, client)).id for _ in range(3)]
    other = await make_group(cloud, client, app="other")
    await other.end("cancelled")

    async def ids(query):
        answer = await client.request("GET", f"/v1/groups{query}")
        CONTRACT.check("list_groups", answer)
        return [item["id"] for item in answer.json["items"]], answer.json["next_cursor"]

    newest = sorted([*made, other.id], reverse=True)
    first, cursor = await ids("?limit=3")
    rest, end = await ids(f"?limit=3&cursor={cursor}")

    assert (first + rest, end) == (newest, None)
    assert (await ids("?app=other"))[0] == (await ids("?status=cancelled"))[0] == [other.id]
    assert (await ids("?function=none"))[0] == []
    assert (await client.request("GET", "/v1/groups?status=queued")).status == 422


async def test_the_stream_of_a_group_begins_with_it_and_has_snapshots(cloud, client):
    group = await make_group(cloud, client, 1)

    page = await client.request("GET", f"/v1/groups/{group.id}/events?snapshot=true")
    beginning = await client.request("GET", f"/v1/groups/{group.id}/events")
    filtered = await client.request("GET", f"/v1/groups/{group.id}/events?types=group.end")
    unknown = await client.request("GET", f"/v1/groups/{group.id}/events?types=job.end")
    beyond = await client.request("GET", f"/v1/groups/{group.id}/events?after=7")

    CONTRACT.check("get_group_events", page)
    assert [(event["index"], event["event"]) for event in beginning.json["events"]] == [(0, "group.created")]
    assert page.json["events"][0]["event"] == "group.snapshot"
    assert page.json["events"][0]["data"] == {"group": await group.get(), "index": 0}
    assert (filtered.json["events"], filtered.json["last_index"]) == ([], 0)
    assert unknown.status == 422
    assert [event["event"] for event in beyond.json["events"]] == ["group.reset"]
