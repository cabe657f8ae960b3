"""Attempts that are executed together: when a batch begins, and what becomes of each of its attempts."""

import json

import pytest

from apothic.wire import link
from apothic.wire.chunks import unpack
from apothic.wire.functions import BatchSpec
from apothic_server.testing.guarantees import guarantee
from apothic_worker.batches import begins_in_s
from apothic_worker.testing.scripted_server import Deployed, ScriptedServer

pytestmark = pytest.mark.anyio

APP = """
import os, socket, subprocess, threading
print("imported")

def count(items):
    return [[item, len(items)] for item in items]

def talk(items):
    print("items", *items)
    subprocess.run(["echo", "from a child"])
    return items

def wait(items):
    print("waiting", *items, flush=True)
    threading.Event().wait(600)

def orphan(items):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return items

def leave(items):
    os._exit(7)
"""


@pytest.fixture(scope="module")
def app(cloud: ScriptedServer) -> Deployed:
    return cloud.deploy({"app.py": APP})


async def batching(cloud, app, name, size, wait_ms=600_000, **changes):
    return await cloud.started_runner(app, name, batching=BatchSpec(size, wait_ms), **changes)


async def assign(cloud, runner, *items, **limits):
    orders = [cloud.assignment(runner, item, **limits) for item in items]
    await cloud.send(assign=orders)
    return orders


async def values(cloud, orders):
    return [json.loads((await cloud.finished(order)).value.data) for order in orders]


def starts(cloud, order):
    return sum(isinstance(item, link.Started) and item.job == order.job for item in cloud.items)


@pytest.mark.parametrize(
    ("size", "wait_ms", "waiting", "waited_s", "expected"),
    [
        (32, 50, 1, 0.0, 0.05),
        (32, 50, 31, 0.02, 0.03),
        (32, 50, 32, 0.0, 0.0),
        (32, 50, 40, 0.0, 0.0),
        (32, 50, 1, 0.05, 0.0),
        (32, 50, 1, 7.0, 0.0),
        (32, 0, 1, 0.0, 0.0),
        (1, 600_000, 1, 0.0, 0.0),
        (2, 600_000, 1, 0.0, 600.0),
    ],
)
def test_a_batch_begins_when_it_is_full_or_its_first_attempt_has_waited(size, wait_ms, waiting, waited_s, expected):
    assert begins_in_s(BatchSpec(size, wait_ms), waiting, waited_s) == pytest.approx(expected)


async def test_full_batches_do_not_wait_and_one_runs_at_a_time(cloud, app):
    runner = await batching(cloud, app, "count", 3)
    orders = await assign(cloud, runner, *range(7))

    assert await values(cloud, orders[:6]) == [[number, 3] for number in range(6)]
    await cloud.round_trip()
    assert [starts(cloud, order) for order in orders] == [1] * 6 + [0]
    orders += await assign(cloud, runner, 7, 8)
    assert await values(cloud, orders[6:]) == [[6, 3], [7, 3], [8, 3]]


async def test_what_came_together_is_a_batch_when_nothing_waits_and_so_are_items_of_maps(cloud, app):
    runner = await batching(cloud, app, "count", 100, wait_ms=0)
    items = [cloud.chunk(runner, number, first=number) for number in range(5)]
    await cloud.send(assign=[*items, cloud.assignment(runner, "single")])

    found = await values(cloud, items)
    alone = await cloud.call(runner, "alone")

    assert found == [[number, 6] for number in range(5)]
    assert json.loads(alone.value.data) == ["alone", 1]


async def test_output_is_that_of_the_first_attempt_and_the_others_say_where(cloud, app):
    fresh = cloud.deploy({"app.py": APP + "\n# other\n"})
    first, second = await assign(cloud, await batching(cloud, fresh, "talk", 2), 1, 2)
    await values(cloud, [first, second])

    assert sorted(cloud.lines(first)) == ["from a child", "imported", "items 1 2"]
    assert (
        cloud.lines(second)
        == cloud.lines(second, stream="system")
        == [f"what its batch wrote is with jobs:{first.job}"]
    )


@guarantee("G4.2", "cancel_spares_neighbours")
async def test_a_cancelled_attempt_leaves_its_batch_at_once_and_the_last_one_ends_the_runner(cloud, app):
    runner = await batching(cloud, app, "wait", 3)
    (early,) = await assign(cloud, runner, "early")
    await cloud.send(cancel=[link.Cancel(early.job, early.fence, 10.0)])
    assert (await cloud.finished(early)).outcome == "cancelled"
    orders = await assign(cloud, runner, 1, 2, 3)
    await cloud.wait_for(link.Logs, lambda logs: logs.job == orders[0].job)
    assert starts(cloud, early) == 0
    for order in orders[:2]:
        await cloud.send(cancel=[link.Cancel(order.job, order.fence, 10.0)])
        assert (await cloud.finished(order)).outcome == "cancelled"
    await cloud.round_trip()
    assert not [item for item in cloud.items if isinstance(item, link.RunnerEnded) and item.runner == runner]
    await cloud.send(cancel=[link.Cancel(orders[2].job, orders[2].fence, 10.0)])

    assert (await cloud.finished(orders[2])).outcome == "cancelled"
    await cloud.wait_for(link.RunnerEnded, lambda ended: ended.runner == runner)


async def test_the_time_of_an_attempt_is_that_of_its_batch_and_its_deadline_is_its_own(cloud, app):
    runner = await batching(cloud, app, "wait", 3)
    orders = await assign(cloud, runner, 1, 2, timeout_s=1)
    orders += await assign(cloud, runner, 3, timeout_s=600, deadline_left_s=0.2)
    ends = [await cloud.finished(order) for order in orders]

    assert [(end.outcome, end.error.code) for end in ends] == [
        ("timed_out", "timeout"),
        ("timed_out", "timeout"),
        ("timed_out", "deadline_exceeded"),
    ]
    assert ends[2].ran_ms < ends[0].ran_ms
    await cloud.wait_for(link.RunnerEnded, lambda ended: ended.runner == runner)


@pytest.mark.parametrize(("name", "outcome", "code"), [("leave", "failed", "exited"), ("orphan", "succeeded", None)])
async def test_a_batch_that_ends_its_runner_gives_each_attempt_its_end(cloud, app, name, outcome, code):
    runner = await batching(cloud, app, name, 2)
    orders = await assign(cloud, runner, 1, 2, 3)
    ends = [await cloud.finished(order) for order in orders]
    await cloud.wait_for(link.RunnerEnded, lambda ended: ended.runner == runner)

    assert [(end.outcome, end.error and end.error.code) for end in ends[:2]] == [(outcome, code)] * 2
    assert (ends[2].outcome, ends[2].never_started) == ("lost", True)


async def test_items_of_a_map_are_a_row_of_batches_that_nothing_joins(cloud, app):
    runner = await batching(cloud, app, "count", 3)
    (waiting,) = await assign(cloud, runner, "a")
    chunk = cloud.chunk(runner, *range(8))
    await cloud.send(assign=[chunk])
    later = await assign(cloud, runner, "b", "c", "d")

    assert await values(cloud, [waiting]) == [["a", 1]], "it does not wait for others behind the items"
    items = (await cloud.finished(chunk)).items
    assert [json.loads(entry[1:]) for entry in unpack(items.data)] == [
        [number, 3 if number < 6 else 2] for number in range(8)
    ]
    assert await values(cloud, later) == [["b", 3], ["c", 3], ["d", 3]]


async def test_batches_of_items_have_their_output_and_each_its_time(cloud, app):
    runner = await batching(cloud, app, "talk", 2)
    chunk = cloud.chunk(runner, 1, 2, 3)
    await cloud.send(assign=[chunk])
    items = (await cloud.finished(chunk)).items
    slow = await batching(cloud, app, "wait", 2)
    order = cloud.chunk(slow, 1, 2, 3, timeout_s=1)
    await cloud.send(assign=[order])
    end = await cloud.finished(order)

    printed = {one.offset: [line.text for line in one.lines] for one in items.output}
    assert "items 1 2" in printed[0]
    assert "items 3" in printed[2]
    assert [line for lines in printed.values() for line in lines].count("from a child") == 2
    assert (end.outcome, end.items.done) == ("timed_out", 0)
