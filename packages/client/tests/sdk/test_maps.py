"""Maps over a real connection, blocking and asyncio: segments, order, failures, lost connections, room, keys."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from apothic import (
    ConflictError,
    ControlPlaneClient,
    InvalidRequestError,
    JobCancelledError,
    JobGroup,
    JobTimeoutError,
    ProtocolError,
    RemoteExecutionError,
    RemoteFunction,
    SerializationError,
    TooLargeError,
)

from .conftest import FUNCTION, ScriptedServer, function_json, make_core, remote_error
from .groups import GROUP, ScriptedGroup, cut_after, failed, hang_up, job_of, refuse, value

Do = Callable[[Any], Any]


@pytest.fixture(params=["blocking", "asyncio"])
def do(request: pytest.FixtureRequest) -> Do:
    """Finish what a blocking or an asyncio method returned; iterators become lists."""

    async def listed(result: Any) -> list[Any]:
        return [entry async for entry in result]

    def finish(result: Any) -> Any:
        if hasattr(result, "__anext__"):
            return asyncio.run(listed(result))
        if inspect.isawaitable(result):
            return asyncio.run(result)
        return list(result) if hasattr(result, "__next__") else result

    finish.is_async = request.param == "asyncio"  # type: ignore[attr-defined]
    return finish


@pytest.fixture
def group(server: ScriptedServer) -> Iterator[ScriptedGroup]:
    """The scripted group; nothing waits for its end after the test."""
    made = ScriptedGroup(server)
    yield made
    made.end("cancelled")


@pytest.fixture
def greet(server: ScriptedServer, do: Any) -> Iterator[Any]:
    """The handle under test, with a clock that stands still: only sizes cut segments."""
    core = make_core(server.url, clock=lambda: 0.0)
    yield handle(server, ControlPlaneClient.from_core(core), do)
    core.idle.close()


@pytest.fixture
def timed(server: ScriptedServer, client: ControlPlaneClient, do: Any) -> Any:
    """The same with a clock that goes."""
    return handle(server, client, do)


def handle(server: ScriptedServer, client: ControlPlaneClient, do: Any) -> Any:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    return function.aio if do.is_async else function


def paths(server: ScriptedServer) -> list[str]:
    return [f"{request.method} {request.path.partition('?')[0].rpartition('/')[2]}" for request in server.received[1:]]


def test_results_come_in_the_order_of_the_items(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.reverses = True

    assert do(greet.map([3, 1, 2])) == [6, 2, 4]
    assert group.created == [{"spread": False, "key": None, "stop_after": None}]
    assert group.segments == [(0, 3)]
    assert group.total == 3


def test_a_small_map_is_four_requests(do: Do, greet: Any, group: ScriptedGroup, server: ScriptedServer) -> None:
    do(greet.map(range(2_000)))

    assert sorted(paths(server)) == ["GET outcomes", "POST close", "POST groups", "POST inputs"]
    assert server.received[1].headers["idempotency-key"]


def test_starmap_spreads_lists_tuples_and_generators(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = lambda _, item: value(sum(item))

    assert do(greet.starmap([(1, 2), [3, 4], iter((5, 6))])) == [3, 7, 11]
    assert group.created[0]["spread"] is True
    assert group.items == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(("item", "words"), [(7, "item 1 .* int"), ("ab", "item 1 .* text")])
def test_starmap_names_an_item_that_holds_no_arguments(do: Do, greet: Any, item: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        do(greet.starmap([(1,), item]))


def test_for_each_returns_nothing(do: Do, greet: Any, group: ScriptedGroup) -> None:
    assert do(greet.for_each(range(10))) is None
    assert group.items == list(range(10))


def test_without_items_nothing_is_sent(do: Do, greet: Any, server: ScriptedServer) -> None:
    assert do(greet.map([])) == []
    assert do(greet.starmap(iter(()))) == []
    assert do(greet.for_each([])) is None
    assert do(greet.map_unordered([])) == []
    assert len(server.received) == 1, "the look-up only"


def test_segments_keep_their_bounds(do: Do, greet: Any, group: ScriptedGroup) -> None:
    sizes = [5] * 4_200 + [30_000] * 3 + [100_000] + [60_000, 60_000] + [5]
    group.execute = lambda number, item: value([number, len(item)])

    assert do(greet.map("x" * size for size in sizes)) == [list(pair) for pair in enumerate(sizes)]
    assert [count for _, count in group.segments[:2]] == [2_000, 2_000]
    alone = [count for (_, count), size in zip(group.segments, group.sizes, strict=True) if size > 65_536]
    assert alone == [1]


def test_items_are_taken_while_earlier_ones_are_sent(do: Do, timed: Any, group: ScriptedGroup) -> None:
    behind: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9_000):
            behind.append(number - len(group.items))
            yield number

    assert do(timed.map(items())) == [number * 2 for number in range(9_000)]
    assert max(behind) <= 2_000


def test_a_segment_leaves_when_the_next_item_takes_long(server: ScriptedServer, group: ScriptedGroup) -> None:
    now = [0.0]
    client = ControlPlaneClient.from_core(make_core(server.url, clock=lambda: now[0]))
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    sent: list[int] = []

    def items() -> Iterator[int]:
        for number in range(4):
            sent.append(len(group.items))
            now[0] += 1.0
            yield number

    assert function.map(items()) == [0, 2, 4, 6]
    client.close()
    assert sent == [0, 1, 2, 3]


PROGRAM = """
import resource
from apothic import RemoteFunction
function = RemoteFunction.from_name("hello-world", "greet")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
function.for_each(str(number) * 500 for number in range(100))
before = peak()
function.for_each(str(number) * 500 for number in range(30_000))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_items(server: ScriptedServer, group: ScriptedGroup) -> None:
    """Items of 70 MB are made one by one, and a client that keeps no results keeps none of them."""
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    group.execute = lambda *_: b"jnull"
    group.keeps_items = False
    env = {"APOTHIC_BASE_URL": server.url, "APOTHIC_API_KEY": "lk_test", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)

    assert int(done.stdout) < 20 * 1024, "KiB"


def test_an_item_of_many_that_cannot_be_sent_is_named_and_the_group_cancelled(
    do: Do, greet: Any, group: ScriptedGroup
) -> None:
    items = itertools.chain(range(2_700), [(number for number in [1])])

    with pytest.raises(SerializationError, match=r"Item 2700 of type builtins\.generator cannot be sent"):
        do(greet.map(items))

    assert group.cancelled == [None]
    assert group.segments == [(0, 2_000)], "what was added before it is not sent any more"


def test_a_first_item_that_cannot_be_sent_costs_no_request(do: Do, greet: Any, server: ScriptedServer) -> None:
    with pytest.raises(TooLargeError, match="Item 0 cannot be sent") as caught:
        do(greet.map(["x" * 1_048_577]))

    assert caught.value.code == "value_too_large"
    assert len(server.received) == 1


def test_an_error_of_the_iterable_cancels_the_group(do: Do, greet: Any, group: ScriptedGroup) -> None:
    def items() -> Iterator[int]:
        yield from range(2_600)
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        do(greet.map(items()))

    assert group.cancelled == [None]


@pytest.mark.parametrize("items", [5, None])
def test_what_is_no_iterable_is_refused(do: Do, greet: Any, items: Any) -> None:
    with pytest.raises(InvalidRequestError, match="an iterable"):
        do(greet.map(items))


@pytest.mark.parametrize(
    "options",
    [{"errors": "ignore"}, {"stop_after": 0}, {"stop_after": True}, {"key": ""}, {"key": "x" * 129}, {"key": 5},
     {"timeout_s": -1}],
)  # fmt: skip
@pytest.mark.parametrize("method", ["map", "starmap", "for_each", "map_unordered"])
def test_wrong_options_are_refused_before_anything_is_sent(
    do: Do, greet: Any, method: str, options: dict[str, Any], server: ScriptedServer
) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(options))):
        do(getattr(greet, method)([1], **options))

    assert len(server.received) == 1


def test_for_each_has_no_place_to_collect_errors_in(do: Do, greet: Any) -> None:
    with pytest.raises(InvalidRequestError, match="raise, drop"):
        do(greet.for_each([1], errors="collect"))


def test_a_generator_function_is_not_mapped(server: ScriptedServer, client: ControlPlaneClient, do: Any) -> None:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json(is_generator=True)))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)

    with pytest.raises(InvalidRequestError) as caught:
        do((function.aio if do.is_async else function).map([1]))
    assert caught.value.code == "is_a_generator"


def fails_at(*numbers: int) -> Callable[[int, Any], bytes]:
    return lambda number, item: failed(message=f"bad {item}") if number in numbers else value(item)


def test_the_failure_of_the_smallest_number_is_raised_after_all_ended(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute, group.reverses = fails_at(3, 7, 8), True

    with pytest.raises(RemoteExecutionError, match=r"ValueError: bad 3 \(item 3\)") as caught:
        do(greet.map(range(10)))

    assert (caught.value.item, caught.value.job_id) == (3, job_of(3))
    assert "2 more items" in "".join(caught.value.__notes__)
    assert group.cancelled == []


def test_failures_are_collected_in_their_places(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = fails_at(1)

    first, second, third = do(greet.map("abc", errors="collect"))

    assert (first, third) == ("a", "c")
    assert (type(second), second.item, second.message) == (RemoteExecutionError, 1, "bad b")


def test_failures_are_dropped(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = fails_at(0, 3, 4)

    assert do(greet.map("abcde", errors="drop")) == ["b", "c"]
    assert do(greet.for_each("abcde", errors="drop")) is None


def test_for_each_raises_a_failure(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = fails_at(2)

    with pytest.raises(RemoteExecutionError) as caught:
        do(greet.for_each("abc"))
    assert caught.value.item == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [("cancelled", JobCancelledError), ("timeout", JobTimeoutError), ("queue_timeout", JobTimeoutError),
     ("worker_lost", RemoteExecutionError)],
)  # fmt: skip
def test_an_item_that_ended_otherwise_raises_what_remote_would(
    do: Do, greet: Any, group: ScriptedGroup, code: str, kind: type[Exception]
) -> None:
    group.execute = lambda *_: failed(code=code)

    with pytest.raises(kind) as caught:
        do(greet.map([1]))

    assert caught.value.code == code  # type: ignore[attr-defined]
    assert caught.value.job_id == job_of(0)  # type: ignore[attr-defined]
    assert getattr(caught.value, "is_final", True)


def test_a_failure_is_raised_rather_than_that_others_were_cancelled_for_it(
    do: Do, greet: Any, group: ScriptedGroup
) -> None:
    group.execute = lambda number, _: failed(code="exception" if number == 2 else "cancelled")

    with pytest.raises(RemoteExecutionError) as caught:
        do(greet.map(range(4), stop_after=1))

    assert caught.value.item == 2
    assert group.created[0]["stop_after"] == 1


def test_items_that_the_group_ended_before_have_its_error(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = lambda number, item: value(item) if number == 0 else None
    error = remote_error(code="deployment_deleted", message="the deployment was stopped")
    group.on_close = [lambda _: group.end("failed", error)]

    first, second, third = do(greet.map("abc", errors="collect"))

    assert (first, second.code, second.item, second.job_id) == ("a", "deployment_deleted", 1, job_of(1))
    assert (third.code, third.item) == ("deployment_deleted", 2)


def test_sending_ends_when_the_group_has_ended(do: Do, timed: Any, group: ScriptedGroup) -> None:
    group.on_inputs = [lambda _: None, lambda _: group.end("cancelled")]
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    with pytest.raises(JobCancelledError) as caught:
        group.execute = lambda *_: None
        do(timed.map(items()))

    assert caught.value.item == 0
    assert len(taken) <= 8_000


def test_outcomes_are_read_on_from_the_first_that_is_missing(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.on_outcomes = [cut_after(group, 0, 1, 3), cut_after(group, 2, 4), cut_after(group, 3, 2)]

    assert do(greet.map(range(8))) == [number * 2 for number in range(8)]
    assert group.froms == [0, 2, 5, 5]


def test_an_outcome_that_comes_twice_counts_once(do: Do, greet: Any, group: ScriptedGroup) -> None:
    def twice(wire: Any) -> None:
        wire.frame(*group.record([0, 1]))
        wire.frame({"kind": "outcomes", "indexes": [1], "python": None}, b"\0\0\0\x04j999")
        wire.frame({"kind": "keep_alive"})

    group.on_outcomes = [twice]

    assert do(greet.map_unordered(range(3))) == [(0, 0), (1, 2), (2, 4)]


def test_inputs_whose_answer_was_lost_are_sent_again(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.on_inputs = [hang_up, lambda _: None, hang_up]
    group.on_close = [hang_up]

    assert do(greet.map(range(2_700))) == [number * 2 for number in range(2_700)]
    assert group.segments == [(0, 2_000), (2_000, 700)]


def test_a_server_that_is_away_for_a_moment_is_waited_for(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.on_inputs = [refuse(503, "unavailable", Retry_After="0")] * 3
    group.on_close = [refuse(503, "unavailable", Retry_After="0")]

    assert do(greet.map([1])) == [2]


def test_a_full_group_is_waited_for(do: Do, timed: Any, group: ScriptedGroup) -> None:
    group.on_inputs = [lambda _: None, *[refuse(429, "group_full", Retry_After="0")] * 20]

    assert do(timed.map(range(3_000))) == [number * 2 for number in range(3_000)]


def test_what_the_server_refuses_ends_the_map_and_the_group(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.on_inputs = [lambda _: None, lambda wire: wire.refuse(409, "group_gap") or True]

    with pytest.raises(ConflictError):
        do(greet.map(range(2_600)))
    assert group.cancelled == [None]


@pytest.mark.parametrize(
    "record",
    [
        ({"kind": "outcomes", "first": 0, "count": 2, "python": None}, b"\0\0\0\x02j1"),
        ({"kind": "outcomes", "first": -1, "count": 1, "python": None}, b"\0\0\0\x02j1"),
        ({"kind": "outcomes", "indexes": [10_000_000], "python": None}, b"\0\0\0\x02j1"),
        ({"kind": "outcomes", "indexes": ["0"], "python": None}, b"\0\0\0\x02j1"),
        ({"kind": "outcomes", "first": 0, "count": 1, "python": None}, b"\0\0\0\x02x1"),
        ({"kind": "outcomes", "first": 0, "count": 1, "python": None}, b"\0\0\0\x09j1"),
        ({"kind": "outcomes", "first": 0, "count": 1, "python": None}, b"\0\0\0\0"),
        ({"kind": "surprise"}, b""),
        ({"kind": "end", "group": None}, b""),
    ],
)
def test_a_malformed_record_is_a_protocol_error(do: Do, greet: Any, group: ScriptedGroup, record: Any) -> None:
    group.on_outcomes = [lambda wire: wire.frame(*record)]

    with pytest.raises(ProtocolError):
        do(greet.map([1]))


def test_the_same_key_goes_on_with_what_was_sent_before(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.hold(list(range(700)))
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000):
            made.append(number)
            yield number

    assert do(greet.map(items(), key="night")) == [number * 2 for number in range(1_000)]
    assert group.created[0]["key"] == "night"
    assert group.segments == [(700, 300)]
    assert len(made) == 1_000


def test_a_group_that_has_all_its_items_is_only_read(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.hold([1, 2], total=2)

    assert do(greet.map(itertools.count(), key="night")) == [2, 4]
    assert group.segments == []


def test_a_group_with_a_key_is_left_alone_when_its_caller_fails(
    do: Do, greet: Any, group: ScriptedGroup, capsys: Any
) -> None:
    def items() -> Iterator[int]:
        yield from range(2_600)
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        do(greet.map(items(), key="night"))

    assert group.cancelled == []
    assert capsys.readouterr().err == f"apothic: left {GROUP}; the same call with its key goes on\n"


def test_a_map_that_takes_too_long_goes_on_when_all_was_sent(do: Do, timed: Any, group: ScriptedGroup) -> None:
    group.execute = lambda *_: None

    with pytest.raises(JobTimeoutError, match=r"has not ended within 0\.2 s; it goes on") as caught:
        do(timed.map(range(3), timeout_s=0.2))

    assert (caught.value.job_id, caught.value.is_final) == (GROUP, False)
    assert group.cancelled == []
    group.end("cancelled")


def test_a_map_that_takes_too_long_is_cancelled_when_items_are_missing(
    do: Do, timed: Any, group: ScriptedGroup
) -> None:
    group.on_inputs = [lambda _: None, *[refuse(429, "group_full", Retry_After="0")] * 1_000_000]

    with pytest.raises(JobTimeoutError, match=r"did not get all its items within 0\.2 s; it was cancelled"):
        do(timed.map(range(2_600), timeout_s=0.2))

    assert group.cancelled == [None]


def test_values_come_in_the_order_in_which_items_end(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.reverses = True

    assert do(greet.map_unordered("abc")) == [(2, "cc"), (1, "bb"), (0, "aa")]


def test_a_failure_among_values_in_any_order_ends_them_at_once(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = lambda number, _: failed(message="bad") if number == 1 else (value(0) if number == 0 else None)

    with pytest.raises(RemoteExecutionError) as caught:
        do(greet.map_unordered(range(5)))

    assert caught.value.item == 1
    assert group.cancelled == [None]


def test_values_in_any_order_hold_failures_or_leave_them_out(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = fails_at(0)

    found = do(greet.map_unordered("ab", errors="collect"))

    assert [(number, getattr(entry, "item", entry)) for number, entry in found] == [(0, 0), (1, "b")]


def test_failures_are_left_out_of_values_in_any_order(do: Do, greet: Any, group: ScriptedGroup) -> None:
    group.execute = fails_at(0)

    assert do(greet.map_unordered("ab", errors="drop")) == [(1, "b")]


def test_leaving_the_loop_cancels_the_group(client: ControlPlaneClient, server: ScriptedServer) -> None:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    group = ScriptedGroup(server)
    group.execute = lambda number, item: value(item) if number < 3 else None
    values = function.map_unordered(range(10))

    assert next(values) == (0, 0)
    values.close()
    assert group.cancelled == [None]


def test_spawn_map_returns_the_jobs_and_their_group(
    do: Do, greet: Any, group: ScriptedGroup, server: ScriptedServer
) -> None:
    jobs = do(greet.spawn_map("abc", stop_after=2))

    assert isinstance(jobs, list)
    assert [job.job_id for job in jobs] == [job_of(0), job_of(1), job_of(2)]
    assert (jobs.group.id, group.total, group.created[0]["stop_after"]) == (GROUP, 3, 2)
    assert paths(server) == ["POST groups", "POST inputs", "POST close"]


def test_spawn_map_of_nothing_is_an_empty_group(do: Do, greet: Any, group: ScriptedGroup) -> None:
    jobs = do(greet.spawn_map([]))

    assert (list(jobs), jobs.group.id, group.total) == ([], GROUP, 0)


def test_results_come_while_an_async_iterable_waits(
    server: ScriptedServer, client: ControlPlaneClient, group: ScriptedGroup
) -> None:
    """Each item is made only when the value of the one before has come."""
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    found: list[tuple[int, int]] = []

    async def main() -> None:
        came = asyncio.Event()

        async def items() -> AsyncIterator[int]:
            for number in range(4):
                yield number
                await came.wait()
                came.clear()

        async for entry in function.aio.map_unordered(items()):
            found.append(entry)
            came.set()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert found == [(number, number * 2) for number in range(4)]


def test_cancelling_the_task_cancels_the_group(
    server: ScriptedServer, client: ControlPlaneClient, group: ScriptedGroup
) -> None:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)
    group.execute = lambda *_: None

    async def main() -> None:
        reads = asyncio.Event()
        loop = asyncio.get_running_loop()
        group.on_outcomes = [lambda _: loop.call_soon_threadsafe(reads.set) and None]
        task = asyncio.create_task(function.aio.map([1, 2]))
        await reads.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 20))
    assert group.cancelled == [None]


def test_a_group_whose_making_was_interrupted_is_found_and_cancelled(
    server: ScriptedServer, client: ControlPlaneClient, group: ScriptedGroup
) -> None:
    server.scripts.append(lambda wire, _: wire.answer(200, function_json()))
    function = RemoteFunction.from_name("hello-world", "greet", client=client)

    async def main() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        group.on_create = [lambda _: loop.call_soon_threadsafe(asked.set) and False]
        task = asyncio.create_task(function.aio.map([1, 2]))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 20))
    keys = {request.headers["idempotency-key"] for request in server.received if FUNCTION in request.path}
    assert group.cancelled == [None]
    assert len(keys) == 1


@pytest.mark.parametrize("errors", ["raise", "collect", "drop"])
def test_a_handle_gives_what_the_map_would(
    do: Any, client: ControlPlaneClient, group: ScriptedGroup, errors: str
) -> None:
    group.execute = fails_at(1)
    group.hold(["a", "b", "c"], total=3)
    known: Any = JobGroup(GROUP, client)
    known = known.aio if do.is_async else known

    if errors == "raise":
        with pytest.raises(RemoteExecutionError) as caught:
            do(known.results())
        assert caught.value.item == 1
    else:
        found = do(known.results(errors=errors))
        assert [entry for entry in found if isinstance(entry, str)] == ["a", "c"]
        assert len(found) == (3 if errors == "collect" else 2)
    assert do(known.wait(timeout_s=0)).counts.final == 3
    assert do(known.status()) == "failed"


def test_a_handle_looks_once(do: Any, client: ControlPlaneClient, group: ScriptedGroup) -> None:
    known: Any = JobGroup(GROUP, client)
    known = known.aio if do.is_async else known

    for look in (known.results, known.wait):
        with pytest.raises(JobTimeoutError, match="has not ended yet; it goes on") as caught:
            do(look(timeout_s=0))
        assert caught.value.job_id == GROUP


def test_a_handle_makes_jobs_when_they_are_asked_for(do: Any, client: ControlPlaneClient, group: ScriptedGroup) -> None:
    group.hold(list(range(1_000)))
    known: Any = JobGroup(GROUP, client)
    jobs = do((known.aio if do.is_async else known).jobs())

    assert len(jobs) == 1_000
    assert [job.job_id for job in (jobs[0], jobs[-1], *jobs[5:7])] == [job_of(n) for n in (0, 999, 5, 6)]
    with pytest.raises(IndexError):
        _ = jobs[1_000]


def test_a_handle_cancels_all_or_some(do: Any, client: ControlPlaneClient, group: ScriptedGroup) -> None:
    known: Any = JobGroup(GROUP, client)
    known = known.aio if do.is_async else known

    assert do(known.cancel([3, 5])) == "cancelled"
    assert do(known.cancel()) == "cancelled"
    assert group.cancelled == [[3, 5], None]
    with pytest.raises(InvalidRequestError, match="items"):
        do(known.cancel([-1]))


@pytest.mark.parametrize("group_id", ["", "jobs:01jc", None])
def test_a_handle_needs_the_id_of_a_group(client: ControlPlaneClient, group_id: Any) -> None:
    with pytest.raises(InvalidRequestError, match="group_id"):
        JobGroup(group_id, client)
