"""Functions that are called for several calls at once, through the whole cloud."""

import os
import signal

import pytest

from .clouds import until
from .processes import descendants, name_of


@pytest.fixture(scope="module", autouse=True)
def batches(cloud, person):
    person.python(person.copy("tests/system/batches_app.py")).ok()


def spawn(cloud, function, *calls):
    return [cloud.spawn("batches", function, *arguments) for arguments in calls]


def outcomes(cloud, jobs):
    found = [cloud.outcome(job) for job in jobs]
    return [one["result"] if one["status"] == "succeeded" else (one["status"], one["error"]) for one in found]


def test_a_full_batch_does_not_wait_and_each_call_gets_its_own_result(cloud):
    jobs = spawn(cloud, "together", (1,), (2,), (3,), (4,))

    assert outcomes(cloud, jobs) == [10, 20, 30, 40]
    assert [cloud.lines(job) for job in jobs] == [["together: 1 2 3 4"]] + [
        [f"what its batch wrote is with {jobs[0]}"]
    ] * 3
    assert [len(cloud.events_of(job, "job.running")) for job in jobs] == [1, 1, 1, 1]


def test_sdk_calls_alone_from_many_and_by_maps_share_batches(person):
    ran = person.script(
        """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        from apothic import BatchingSpec, RemoteFunction

        sizes, later, together = (RemoteFunction.from_name("batches", name) for name in ("sizes", "later", "together"))
        assert sizes.batching == BatchingSpec(max_batch_size=32, wait_ms=2_000)
        assert RemoteFunction.from_name("batches", "plain").batching is None
        found = sizes.map(range(1_000))
        assert [item for item, _ in found] == list(range(1_000))
        print(min(size for _, size in found), sum(1 / size for _, size in found))
        with ThreadPoolExecutor(32) as pool:
            print(sorted(pool.map(sizes.remote, range(32))) == [[item, 32] for item in range(32)])
        group = sizes.spawn_map(range(20)).group
        print([size for _, size in sizes.map(range(100, 112))], sorted({size for _, size in group.results()}))

        async def main():
            print(await asyncio.gather(*(later.aio.remote(number) for number in range(4))))

        asyncio.run(main())
        jobs = [together.spawn(1), together.spawn(items=2), together.spawn(3, 100), together.spawn(4, factor=7)]
        print([job.wait() for job in jobs])
        """,
        name="batches_reader.py",
    ).ok()

    smallest, batches, *rest = ran.out.split(maxsplit=2)
    assert int(smallest) >= 8
    assert 31.9 < float(batches) < 33
    assert rest == ["True\n" + f"{[32] * 12} [32]\n" + "[1, 2, 3, 4]\n" + "[10, 20, 300, 28]\n"]


def test_a_batch_begins_when_its_first_call_has_waited_long_enough(cloud):
    (job,) = spawn(cloud, "sizes", ("alone",))

    assert outcomes(cloud, [job]) == [["alone", 1]]
    running = cloud.job(job)
    assert running["status"] == "succeeded"


def test_an_exception_in_the_list_fails_its_own_call_which_joins_a_later_batch(cloud):
    jobs = spawn(cloud, "picky", (1,), (-2,), (3,))
    first = [outcomes(cloud, [job])[0] for job in (jobs[0], jobs[2])]
    others = spawn(cloud, "picky", (4,), (5,))
    (failed,) = outcomes(cloud, [jobs[1]])

    assert first == [1, 3]
    assert outcomes(cloud, others) == [4, 5]
    assert (failed[0], failed[1]["type"], failed[1]["message"]) == ("failed", "builtins.ValueError", "-2 is refused")
    assert [cloud.job(job)["attempt"] for job in (*jobs, *others)] == [1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("items", "code", "words"),
    [
        ((0, 1, 2), "exception", "one is zero"),
        ((3, 1, 2), "batch_result_mismatch", "returned 2 results for a batch of 3"),
    ],
    ids=["raised", "length"],
)
def test_what_goes_wrong_with_the_whole_batch_fails_all_of_it(cloud, items, code, words):
    found = outcomes(cloud, spawn(cloud, "broken", *((item,) for item in items)))

    assert [(status, error["code"], words in error["message"]) for status, error in found] == [
        ("failed", code, True)
    ] * 3


def test_a_call_is_cancelled_before_its_batch_and_in_it_and_the_others_go_on(cloud):
    early, *jobs = spawn(cloud, "held", ("early",), (1,))
    until(lambda: cloud.job(early)["status"] == "starting", "the first call is collected")
    assert cloud.request("POST", f"/v1/jobs/{early}/cancel").status in (200, 202)
    assert cloud.outcome(early)["status"] == "cancelled"
    jobs += spawn(cloud, "held", (2,), (3,))
    cloud.wait_line(jobs[0], "holding 1 2 3")

    for job in jobs[:2]:
        assert cloud.request("POST", f"/v1/jobs/{job}/cancel").status in (200, 202)
        assert cloud.outcome(job)["status"] == "cancelled"
    gates = [pid for pid in descendants(cloud.pid) if name_of(pid) == "batch-gate"]
    os.kill(gates[0], signal.SIGUSR1)

    assert outcomes(cloud, [jobs[2]]) == [3]
    assert cloud.lines(early) == []
    assert cloud.lines(jobs[0]) == ["holding 1 2 3"]
    assert cloud.lines(jobs[2]) == ["going on"]


def test_a_batch_whose_calls_are_all_cancelled_is_stopped(cloud):
    jobs = spawn(cloud, "held", (1,), (2,), (3,))
    cloud.wait_line(jobs[0], "holding")
    for job in jobs:
        cloud.request("POST", f"/v1/jobs/{job}/cancel")

    assert [cloud.outcome(job)["status"] for job in jobs] == ["cancelled"] * 3
    until(lambda: "batch-gate" not in map(name_of, descendants(cloud.pid)), "the code of the batch has ended")


def test_a_batch_that_takes_too_long_times_out_as_a_whole(cloud):
    found = outcomes(cloud, spawn(cloud, "endless", (1,), (2,)))

    assert [(status, error["code"]) for status, error in found] == [("timed_out", "timeout")] * 2


def test_a_batch_that_ends_its_process_fails_and_the_next_one_runs(cloud):
    found = outcomes(cloud, spawn(cloud, "leave", (1,), (2,)))

    assert [(status, error["code"]) for status, error in found] == [("failed", "exited")] * 2


def test_a_batch_calls_other_functions_and_waits_for_them(cloud):
    assert outcomes(cloud, spawn(cloud, "nested", (1,), (2,), (3,))) == [2, 3, 4]
