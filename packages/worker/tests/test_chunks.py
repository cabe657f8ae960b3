"""Items of maps through a real worker, a real sandbox and the real runtime."""

import json
from dataclasses import replace
from typing import Any

import pytest

from apothic.wire import link
from apothic.wire.chunks import pack, unpack
from apothic.wire.limits import CHUNK_OUTCOMES_MAX, CHUNK_OUTPUT_MAX, MIB, VALUE_MAX
from apothic_server.testing.guarantees import guarantee
from apothic_worker.chunk import KEPT_OUTPUT_MAX, Chunk, ChunkLog
from apothic_worker.testing.scripted_server import Deployed, ScriptedServer

from .conftest import linked

pytestmark = pytest.mark.anyio

APP = """
import asyncio, os, subprocess, sys, time
print("imported")

def double(x):
    return x * 2

async def double_later(x):
    await asyncio.sleep(0)
    return x * 2

def invert(x):
    return 1 / x

def talk(x):
    print("item", x)
    if x == 1:
        sys.stderr.write("no end")
        subprocess.run(["echo", "from a child"])
        time.sleep(0.002)
    return x

def quiet(x):
    if x == 3:
        print("just me")

def flood(size):
    block = ("y" * 99 + "\\n") * 1000
    for _ in range(size // len(block)):
        sys.stdout.write(block)

def make(size):
    return "x" * size

def leave(x):
    time.sleep(0.002)
    if x == 2:
        os._exit(7)
    return x

def sleep(s):
    time.sleep(s)
    if s > 60:
        print("woke")
    return s

def orphan(x):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return x
"""


@pytest.fixture(scope="module")
def app(cloud: ScriptedServer) -> Deployed:
    return cloud.deploy({"app.py": APP})


def outcomes(end: link.Finished) -> list[Any]:
    """Return values and errors of a chunk's items; checks that all of it fits together."""
    items = end.items
    assert items is not None
    found: list[Any] = []
    for number, entry in enumerate(unpack(items.data)):
        data = json.loads(entry[1:])
        assert (number in items.failed) == (entry[:1] == b"e")
        found.append(data["type"] if number in items.failed else data)
    assert items.done == len(found)
    return found


def texts(end: link.Finished) -> dict[int, list[str]]:
    """Return the lines of each item."""
    assert end.items is not None
    return {output.offset: [line.text for line in output.lines] for output in end.items.output}


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("name", ["double", "double_later"])
async def test_a_chunk_ends_once_with_the_outcome_of_each_item(cloud, app, name, tasks):
    runner = await cloud.started_runner(app, name, tasks=tasks, is_async=name != "double")
    orders = [cloud.chunk(runner, *range(first, first + 500), first=first) for first in (0, 500, 1000)]
    await cloud.send(assign=orders)

    ends = [await cloud.finished(order) for order in orders]

    assert [end.outcome for end in ends] == ["succeeded"] * 3
    assert [value for end in ends for value in outcomes(end)] == list(range(0, 3000, 2))
    assert all((end.value, end.error, end.items.failed, end.items.output) == (None, None, [], []) for end in ends)
    assert not [item for item in cloud.items if isinstance(item, link.Logs) and item.job in {o.job for o in orders}]


async def test_items_that_fail_are_data_and_the_chunk_succeeds(cloud, app):
    runner = await cloud.started_runner(app, "invert")
    end = await cloud.call_items(runner, 1, 0, 2, 0)

    assert end.outcome == "succeeded"
    assert outcomes(end) == [1.0, "builtins.ZeroDivisionError", 0.5, "builtins.ZeroDivisionError"]


async def test_one_item_is_an_attempt_like_any_other(cloud, app):
    runner = await cloud.started_runner(app, "talk")
    end = await cloud.call_items(runner, [1], spread=True, first=7)
    failed = await cloud.call_items(await cloud.started_runner(app, "invert"), 0)

    assert (end.outcome, end.value.data, end.items) == ("succeeded", b"1", None)
    assert {"item 1", "from a child", "no end"} <= set(cloud.lines(end))
    assert (failed.outcome, failed.error.type, failed.items) == ("failed", "builtins.ZeroDivisionError", None)


async def test_each_item_has_its_lines_and_none_of_the_import(cloud):
    fresh = cloud.deploy({"app.py": APP + "\n# other\n"})
    end = await cloud.call_items(await cloud.started_runner(fresh, "talk"), 0, 1, 2)
    quiet = await cloud.call_items(await cloud.started_runner(fresh, "quiet"), *range(10))

    found = texts(end)
    assert found.keys() == {0, 1, 2}
    assert (found[0], found[2]) == (["item 0"], ["item 2"])
    assert sorted(found[1]) == ["from a child", "item 1", "no end"]
    assert texts(quiet) == {3: ["just me"]}


@guarantee("G5.8", "log_loss_is_visible")
async def test_an_item_that_floods_is_cut_the_loss_is_told_and_the_rest_given_back(cloud, app):
    size = 30 * MIB
    end = await cloud.call_items(await cloud.started_runner(app, "flood"), 0, size, 0, 0)

    (output,) = end.items.output
    kept = sum(len(line.text) + 1 for line in output.lines if line.stream == "stdout")
    told = [int(line.text.split()[0]) for line in output.lines if line.stream == "system"]
    assert (end.outcome, end.items.done, output.offset) == ("succeeded", 2, 1)
    assert CHUNK_OUTPUT_MAX <= kept <= KEPT_OUTPUT_MAX
    assert sum(told) > 0


async def test_a_chunk_whose_outcomes_grow_large_gives_the_rest_back(cloud, app):
    runner = await cloud.started_runner(app, "make")
    end = await cloud.call_items(runner, *[VALUE_MAX - 2] * 5)
    small = await cloud.call_items(runner, *[100_000] * 50)

    assert (end.outcome, end.items.done) == ("succeeded", 1)
    assert len(small.items.data) < CHUNK_OUTCOMES_MAX + 100_100
    assert small.items.done == 11


async def test_a_death_leaves_the_items_before(cloud, app):
    runner = await cloud.started_runner(app, "leave")
    end = await cloud.call_items(runner, 0, 1, 2, 3)

    assert (end.outcome, end.error.code) == ("failed", "exited")
    assert outcomes(end) == [0, 1]
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_the_time_limit_is_that_of_each_item(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    patient = await cloud.call_items(runner, 0.6, 0.6, 0.6, timeout_s=1)
    late = await cloud.call_items(runner, 0.6, 0.6, 100, 0, timeout_s=1)

    assert (patient.outcome, outcomes(patient)) == ("succeeded", [0.6, 0.6, 0.6])
    assert (late.outcome, late.error.code) == ("timed_out", "timeout")
    assert outcomes(late) == [0.6, 0.6]
    assert 2_000 <= late.ran_ms < 5_000
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_the_deadline_is_that_of_the_chunk(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    end = await cloud.call_items(runner, *[0.1] * 100, timeout_s=60, deadline_left_s=1)

    assert (end.outcome, end.error.code) == ("timed_out", "deadline_exceeded")
    assert 0 < end.items.done < 100


@pytest.mark.parametrize("tasks", [1, 2])
async def test_cancel_leaves_the_items_before(cloud, app, tasks):
    runner = await cloud.started_runner(app, "sleep", tasks=tasks)
    order = cloud.chunk(runner, 0, 0.01, 30, 0)
    await cloud.send(assign=[order])
    await cloud.wait_for(link.Started, lambda item: item.job == order.job)
    await cloud.send(cancel=[link.Cancel(order.job, order.fence, 1.0)])
    end = await cloud.finished(order)

    assert (end.outcome, end.error) == ("cancelled", None)
    assert outcomes(end) == [0, 0.01][: end.items.done]


async def test_what_is_taken_back_is_given_back_and_the_runner_goes_on(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    running, waiting, single = cloud.chunk(runner, *[0.2] * 50), cloud.chunk(runner, 0, 0), cloud.chunk(runner, 0)
    await cloud.send(assign=[running, waiting, single])
    await cloud.wait_for(link.Started, lambda item: item.job == running.job)
    taken = [link.TakeBack(order.job, order.fence) for order in (running, waiting, single, running)]
    await cloud.send(take_back=[*taken, link.TakeBack("unknown", 1), link.TakeBack(running.job, 9)])
    ends = [await cloud.finished(order) for order in (running, waiting, single)]

    assert [end.outcome for end in ends] == ["succeeded"] * 3
    assert 1 <= ends[0].items.done < 50
    assert (ends[1].items, ends[1].never_started) == (link.ChunkResult(0), False)
    assert not [item for item in cloud.items if isinstance(item, link.Started) and item.job == waiting.job]
    assert (ends[2].items, ends[2].value.data) == (None, b"0")
    assert outcomes(await cloud.call_items(runner, 0, 0)) == [0, 0]


@guarantee("G4.2", "no_process_left")
async def test_processes_left_by_items_are_dead_when_the_end_of_the_chunk_is_told(cloud, app):
    runner = await cloud.started_runner(app, "orphan")
    end = await cloud.call_items(runner, 1, 2)

    assert (end.outcome, outcomes(end)) == ("succeeded", [1, 2])
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


@pytest.mark.parametrize(
    ("data", "count"),
    [(pack([b"j1"]), 2), (pack([b"j1"] * 2)[:-1], 2), (pack([b"j1"] * 2), 1), (b"", 0), (pack([b"j1"] * 2_001), 2_001)],
)
async def test_an_order_that_does_not_hold_its_items_is_refused(cloud, app, data, count):
    runner = await cloud.started_runner(app, "double")
    order = cloud.chunk(runner, 1, 2)
    order = replace(order, arguments=replace(order.arguments, data=data), items=link.ChunkOrder("g1", 0, count))
    await cloud.send(assign=[order])
    end = await cloud.finished(order)

    assert (end.outcome, end.error.code, end.items) == ("failed", "arguments_unreadable", link.ChunkResult(0))
    assert outcomes(await cloud.call_items(runner, 1, 2)) == [2, 4]


async def test_a_worker_that_stops_gives_back_what_was_not_begun(tmp_path):
    async with linked(tmp_path) as (cloud, worker):
        runner = await cloud.started_runner(cloud.deploy({"app.py": APP}), "sleep")
        order = cloud.chunk(runner, *[0.2] * 300)
        await cloud.send(assign=[order])
        await cloud.wait_for(link.Started, lambda item: item.job == order.job)
        await worker.stop()
        end = await cloud.finished(order)

    assert (end.outcome, end.error) == ("succeeded", None)
    assert 1 <= end.items.done < 75


# --- what user code may say in the runtime's place

ORDER = link.ChunkOrder("g1", 0, 4)
ERROR = {"type": "x.Y", "message": "no", "traceback": "", "code": "timeout", "causes": []}


def make_chunk(clock=lambda: 7) -> tuple[Chunk, list[bool]]:
    asked: list[bool] = []
    return Chunk(ORDER, ChunkLog(clock, ORDER.count, lambda: asked.append(True))), asked


def done(count: object, *, is_last: object = False, python: object = None, kind: str = "done") -> dict[str, Any]:
    return {"kind": kind, "count": count, "is_last": is_last, "python": python}


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (done(1, kind="result"), pack([b"j1"])),
        (done(2), pack([b"j1"])),
        (done(0), b""),
        (done(-1), b""),
        (done("1"), pack([b"j1"])),
        (done(1), b"\0\0\0\2j"),
        (done(1), pack([b""])),
        (done(1), pack([b"x1"])),
        (done(1), pack([b"e1"])),
        (done(1), pack([b"e{"])),
        (done(1), pack([b"e" + b"[" * 100_000])),
        (done(1), pack([b'e{"type": "x"}'])),
        (done(1), pack([b"j" + b"1" * (VALUE_MAX + 1)])),
        (done(2), pack([b"j" + b"1" * VALUE_MAX, b"j1"])),
        (done(1, is_last=True), pack([b"j1"])),
        (done(1, is_last=1), pack([b"j1"])),
        (done(4), pack([b"j1"] * 4)),
        (done(5, is_last=True), pack([b"j1"] * 5)),
        (done(1, python="4.0"), pack([b"j1"])),
        (done(1, python=3), pack([b"j1"])),
        ({"kind": "done"}, b""),
    ],
    ids=range(21),
)
def test_what_no_runtime_would_say_of_items_is_refused(head, body):
    chunk, _ = make_chunk()
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError, RecursionError)):
        chunk.add(head, body, may_stop=False)

    assert chunk.result() == link.ChunkResult(0)
    assert chunk.add(done(4, is_last=True), pack([b"j1"] * 4), may_stop=False)


@pytest.mark.parametrize("item", [-1, 4, True, "0", None, 0.0])
def test_output_of_an_item_that_is_none_is_refused(item):
    chunk, _ = make_chunk()
    with pytest.raises(ValueError, match="item"):
        chunk.log.print(item, "stdout", b"x\n")


def test_codes_that_only_the_worker_gives_are_no_items():
    chunk, _ = make_chunk()
    is_last = [chunk.add(done(1), pack([b"e" + json.dumps(ERROR).encode()]), may_stop=False) for _ in range(2)]
    result = chunk.result()

    assert is_last == [False, False]
    assert result.failed == [0, 1]
    assert {json.loads(entry[1:])["code"] for entry in unpack(result.data)} == {"exception"}


def test_a_chunk_may_end_before_its_last_item_when_it_was_asked_to_or_is_full():
    for may_stop, is_asked_back, size in [(True, False, 1), (False, True, 1), (False, False, CHUNK_OUTCOMES_MAX)]:
        chunk, _ = make_chunk()
        chunk.is_asked_back = is_asked_back
        assert not chunk.add(done(1), pack([b"j1"]), may_stop=may_stop)
        assert chunk.add(done(1, is_last=True), pack([b"j" + b"1" * (size - 1)]), may_stop=may_stop)
        assert chunk.result().done == 2


def test_output_past_the_runtime_belongs_to_an_item_that_ended_next():
    chunk, _ = make_chunk()
    chunk.log.write("stdout", b"first\nhalf")
    chunk.add(done(2), pack([b"j1"] * 2), may_stop=False)
    chunk.log.write("stderr", b"of the one under way")

    lines = {item.offset: [(line.stream, line.text) for line in item.lines] for item in chunk.result().output}
    assert lines == {1: [("stdout", "first"), ("stdout", "half")], 2: [("stderr", "of the one under way")]}


def test_output_is_kept_within_its_bound_whoever_writes_it():
    times = iter(range(0, 10**9, 1000))
    chunk, asked = make_chunk(lambda: next(times))
    line = b"x" * 999 + b"\n"
    for _ in range(3000):
        chunk.log.print(0, "stdout", line)
        chunk.log.write("stderr", line)

    (output,) = chunk.result().output
    kept = [text for text in output.lines if text.stream != "system"]
    assert asked == [True]
    assert len(kept) * 1000 <= KEPT_OUTPUT_MAX
    assert f"{(6000 - len(kept)) * 1000} bytes of output dropped" in output.lines[-1].text
