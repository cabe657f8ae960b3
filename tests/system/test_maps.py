"""Maps through the whole cloud: SDK, command line, server, worker, runtime and back."""

import json
import signal
import subprocess

import pytest

from .clouds import until, with_pid
from .processes import command_of, descendants

HEAD = """
import asyncio, os, signal, sys
from apothic import (
    ControlPlaneClient, Job, JobCancelledError, JobGroup, RemoteExecutionError, RemoteFunction, SerializationError
)

def look(name):
    return RemoteFunction.from_name("maps", name)

client = ControlPlaneClient.from_env()
"""


@pytest.fixture(scope="module", autouse=True)
def maps(cloud, person):
    person.python(person.copy("tests/system/maps_app.py")).ok()


def script(person, text, *arguments, **options):
    return person.script(HEAD + text, *arguments, name="maps_reader.py", **options)


def test_results_have_the_order_of_the_items_and_are_what_they_were(person):
    ran = script(
        person,
        """
from decimal import Decimal

double, add = look("double"), look("add")
assert double.map([3, "ab", Decimal("1.5"), [1]]) == [6, "abab", Decimal("3.0"), [1, 1]]
assert add.starmap([(1, 2), [3], ("a", "b")], errors="collect") == [3, 3, "ab"]
assert look("kinds").map([[1, "a"], [None], []]) == [{"int", "str"}, {"NoneType"}, set()]
assert double.map(number for number in range(20_000)) == [2 * number for number in range(20_000)]
assert sorted(double.map_unordered(range(3_000))) == [(number, 2 * number) for number in range(3_000)]
assert double.for_each(range(10)) is None
assert double.map(["x" * 300_000, 1, "y" * 70_000]) == ["x" * 600_000, 2, "y" * 140_000]
print("same")
""",
    ).ok()

    assert ran.out == "same\n"


def test_asynchronous_maps_and_functions(person):
    ran = script(
        person,
        """
async def numbers(count):
    for number in range(count):
        yield number
        await asyncio.sleep(0)

async def main():
    halve = look("halve").aio
    assert await halve.map(numbers(1_000)) == [number / 2 for number in range(1_000)]
    found, both = {}, [asyncio.create_task(look("double").aio.map([n] * 50)) for n in (1, 2)]
    async for number, value in halve.map_unordered(range(100)):
        found[number] = value
    assert found == {number: number / 2 for number in range(100)}
    assert await asyncio.gather(*both) == [[2] * 50, [4] * 50]
    jobs = await look("double").aio.spawn_map([5, 6])
    print(await jobs.group.aio.results(), [await job.aio.wait() for job in jobs])

asyncio.run(main())
""",
    ).ok()

    assert ran.out == "[10, 12] [10, 12]\n"


def test_items_that_fail_are_raised_collected_or_dropped(person):
    ran = script(
        person,
        """
picky = look("picky")
try:
    picky.map(range(1_000))
except RemoteExecutionError as error:
    assert (error.item, error.message, error.type_name) == (3, "3 is refused", "builtins.ValueError"), error
    group = JobGroup(error.job_id.replace("jobs:", "groups:").rpartition(".")[0], client)
    counts = group.info().counts
    bad = len([n for n in range(1_000) if n % 7 == 3])
    assert (group.status(), counts.failed, counts.succeeded) == ("failed", bad, 1_000 - bad)
mixed = picky.map(range(100), errors="collect")
assert [n for n, found in enumerate(mixed) if isinstance(found, RemoteExecutionError)] == list(range(3, 100, 7))
assert all(found.item == n for n, found in enumerate(mixed) if n % 7 == 3)
assert picky.map(range(100), errors="drop") == [n for n in range(100) if n % 7 != 3]
lost = [found.item for found in look("suicidal").map(range(80), errors="collect") if isinstance(found, Exception)]
assert lost == [40], lost
try:
    picky.map(range(3, 70_000, 7), stop_after=5)
except RemoteExecutionError as error:
    found = client.list_groups(app="maps", function="picky", limit=1)[0]
    assert found.status == "cancelled" and found.counts.succeeded == 0, found
    print(found.error["code"], found.counts.failed < 5_000)
""",
        deadline_s=120,
    ).ok()

    assert ran.out == "stopped_after_failures True\n"


def test_an_item_is_a_job(person):
    ran = script(
        person,
        """
jobs = look("loud").spawn_map(["a", "b", "c"])
assert [job.wait() for job in jobs] == ["a", "b", "c"]
assert jobs.group.wait().status == "succeeded"
print([job.logs() for job in jobs], jobs[1].status(), jobs[1].job_id.endswith(".1"))
""",
    ).ok()

    assert ran.out == "[['item a'], ['item b'], ['item c']] succeeded True\n"


def test_a_map_inside_a_function(person):
    ran = script(person, 'print(look("outer").remote(4), look("outer").remote(1_000))').ok()

    assert ran.out == f"{2 * sum(range(4)) * 2} {2 * sum(range(1_000))}\n"


def test_a_client_that_died_halfway_is_followed_by_another_with_the_same_key(person):
    text = """
stops_at = int(sys.argv[1])

def numbers():
    for number in range(10_000):
        if number == stops_at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield number

found = look("double").map(numbers(), key="night")
assert found == [2 * number for number in range(10_000)]
print(len([group for group in client.list_groups(app="maps") if group.key == "night"]))
"""
    died = script(person, text, "5000")
    again = script(person, text, "-1").ok()

    assert died.status == -signal.SIGKILL
    assert again.out == "1\n"


def test_a_cancelled_group_ends_and_keeps_what_it_has(person, cloud):
    reader = person.popen(
        *person.script_command(
            HEAD
            + """
jobs = look("endless").spawn_map(range(3))
print(jobs.group.id, flush=True)
try:
    jobs.group.results(timeout_s=60)
except JobCancelledError as error:
    print(error.item)
""",
            name="endless_reader.py",
        ),
        stdout=subprocess.PIPE,
    )
    group_id = reader.stdout.readline().strip()
    until(lambda: cloud.request("GET", f"/v1/groups/{group_id}").json["counts"]["running"], "an item runs")

    cancelled = person.apothic("group", "cancel", group_id, "--json").ok().json
    out, _ = reader.communicate(timeout=60)
    watched = person.apothic("group", "watch", group_id, "--json")

    assert cancelled["status"] in {"cancelling", "cancelled"}
    assert out == "0\n"
    assert (watched.status, watched.json["status"]) == (103, "cancelled")


def test_every_item_has_one_result_though_server_and_worker_are_killed(own_cloud, stranger):
    cloud = own_cloud()
    stranger.python(stranger.copy("tests/system/maps_app.py")).ok()
    port = cloud.url.rpartition(":")[2]
    reader = stranger.popen(
        *stranger.script_command(
            HEAD + 'print(sum(look("lasting").map(range(1_500), key="sum")))', name="lasting_reader.py"
        ),
        stdout=subprocess.PIPE,
    )
    group = wait_for_ended(cloud, 100)
    cloud.kill()
    again = own_cloud("--port", port)
    wait_for_ended(again, group["counts"]["succeeded"] + 200)
    with_pid(workers_of(again)[0], signal.SIGKILL)
    out, _ = reader.communicate(timeout=120)

    listed = stranger.apothic("group", "list", "--json").ok().json["items"]
    assert out == f"{sum(range(1_500))}\n"
    assert [(group["status"], group["counts"]["succeeded"]) for group in listed] == [("succeeded", 1_500)]


def workers_of(cloud):
    named = json.loads((cloud.data / "worker" / "worker.json").read_text())["pid"]
    return [pid for pid in (named, *descendants(cloud.pid)) if "apothic_worker.cli" in command_of(pid)]


def wait_for_ended(cloud, count):
    """Wait until so many items of the only group have ended, and return the group."""

    def look():
        groups = cloud.request("GET", "/v1/groups").json["items"]
        return groups[0] if groups and groups[0]["counts"]["succeeded"] >= count else None

    return until(look, f"{count} items ended", deadline_s=60)


def test_the_command_line_tells_of_maps(person):
    group_id = script(person, 'print(look("double").spawn_map(range(5)).group.id)').ok().out.strip()
    watched = person.apothic("group", "watch", group_id)
    status = person.apothic("group", "status", group_id, "--json").ok().json

    assert (watched.status, watched.out.splitlines()[-1]) == (0, "group.end  succeeded, 5 of 5 ended")
    assert (status["status"], status["total"], status["counts"]["succeeded"]) == ("succeeded", 5, 5)
