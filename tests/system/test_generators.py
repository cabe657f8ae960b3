"""Generators through the whole cloud: SDK and command line, server, worker, runtime and back."""

import json
import re
import signal
from pathlib import Path

import pytest

from .clouds import until
from .people import APOTHIC, DEADLINE_S
from .processes import is_asleep

HEAD = "import apothic\nfrom apothic import Job, RemoteFunction\nfrom apothic.client import ControlPlaneClient\n"
MEMORY_MB_MAX = 48
"""What the server may grow by while far more than that passes through it."""


@pytest.fixture(scope="module", autouse=True)
def generators(cloud, person):
    person.python(person.copy("tests/system/generators_app.py")).ok()


def script(person, text, *arguments, **options):
    lookup = 'def look(name):\n    return RemoteFunction.from_name("generators", name)\n'
    return person.script(HEAD + lookup + text, *arguments, name="read.py", **options)


def resident_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def test_items_come_in_order_as_what_they_were_and_the_job_has_a_result(person):
    ran = script(
        person,
        """
from decimal import Decimal
assert list(look("lines").remote_gen(20_000)) == [f"line {n:08d}" for n in range(20_000)]
assert list(look("mixed").remote_gen()) == [1, Decimal("1.50"), {"text": "Grüße \\U0001f600"}, {1, 2}]
assert list(look("from_threads").remote_gen(9)) == list(range(9))
assert list(look("forks").remote_gen()) == ["before", "after"]
job = look("lines").spawn(3)
items = job.wait_gen()
next(items)
place = items.checkpoint()
assert list(items) == list(job.wait_gen(checkpoint=place)) == ["line 00000001", "line 00000002"]
assert list(job.wait_gen(last_index=place.last_index)) == ["line 00000001", "line 00000002"]
assert job.wait() == 3
print("same")
""",
    ).ok()

    assert ran.out == "same\n"


def test_asynchronous_readers_and_generators(person):
    ran = script(
        person,
        """
import asyncio, contextlib

async def main():
    later = look("later")
    assert [item async for item in later.aio.remote_gen(2_000)] == list(range(2_000))
    job = await later.aio.spawn(5)
    assert [item async for item in job.aio.wait_gen()] == list(range(5))
    assert await job.aio.logs() == ["cleaned up"]
    forever = look("forever")
    async with contextlib.aclosing(forever.aio.remote_gen()) as items:
        async for item in items:
            if item == 10:
                break
    print(items.job_id)

asyncio.run(main())
""",
    ).ok()

    assert ran.out.startswith("jobs:")


@pytest.mark.parametrize("stubborn", [False, True])
def test_leaving_remote_gen_cancels_the_job_and_leaving_wait_gen_does_not(cloud, person, stubborn):
    ran = script(
        person,
        f"""
items = look("forever").remote_gen({stubborn})
assert [item for item, _ in zip(items, range(100))] == list(range(100))
items.close()
print(items.job_id)
job = look("one_and_wait").spawn()
for pid in job.wait_gen():
    break
print(job.job_id)
""",
    ).ok()
    left, watched = ran.out.split()

    until(lambda: cloud.job(left)["status"] == "cancelled", "the job of remote_gen is cancelled")
    assert cloud.job(watched)["status"] == "running"
    assert cloud.request("POST", f"/v1/jobs/{watched}/cancel").status == 200
    until(lambda: cloud.job(watched)["status"] == "cancelled", "cancelled by hand")


def test_items_before_a_failure_stay_and_the_error_comes_at_its_place(cloud, person):
    ran = script(
        person,
        """
for name, arguments, count in [("fails", (5,), 5), ("unserializable", (), 1), ("large", (), 1), ("elsewhere", (), 0)]:
    got = []
    try:
        for item in look(name).remote_gen(*arguments):
            got.append(item)
    except apothic.RemoteExecutionError as error:
        assert len(got) == count, (name, len(got))
        print(error.code, error.message)
    except apothic.InvalidRequestError as error:
        print(error.code)
""",
    ).ok()

    codes = [line.split(" ", 1) for line in ran.out.splitlines()]
    assert [line[0] for line in codes] == ["exception", "result_unserializable", "result_too_large", "not_a_generator"]
    assert "item 1 of type _thread.lock" in codes[1][1]
    assert codes[2][1].startswith("item 1 cannot be sent: more than the 1 MiB that a value may have")


def test_a_later_attempt_repeats_nothing_to_a_reader(person):
    ran = script(person, 'print(list(look("fails_once").remote_gen(6)))').ok()

    assert ran.out == "[0, 1, 2, 3, 4, 5]\n"


def test_several_generators_in_one_runner_keep_their_items_apart(person):
    ran = script(
        person,
        """
for name in ("together", "together_async"):
    jobs = {label: look(name).spawn(label, 500) for label in "abc"}
    for label, job in jobs.items():
        assert list(job.wait_gen()) == [[label, number] for number in range(500)], name
print("apart")
""",
    ).ok()

    assert ran.out == "apart\n"


def test_a_program_that_is_interrupted_cancels_its_job(cloud, person):
    process = person.popen(*person.script_command(HEAD + SHOW_FIRST), stdout=-1, stderr=-1, start_new_session=True)
    job = process.stdout.readline().strip()
    until(lambda: is_asleep(process.pid), "the program waits for its next item")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert job.startswith("jobs:")
    until(lambda: cloud.job(job)["status"] == "cancelled", "Ctrl-C cancels the job")


SHOW_FIRST = """
items = RemoteFunction.from_name("generators", "one_and_wait").remote_gen()
next(items)
print(items.job_id, flush=True)
next(items)
"""


def test_the_command_line_prints_items_as_lines_of_json(cloud, person):
    plain = person.apothic("run", "mixed", "--app-name", "generators").ok()
    document = person.apothic("run", "lines", "--app-name", "generators", "--payload", '{"args": [2]}', "--json").ok()
    watched = person.apothic("run", "lines", "--app-name", "generators", "--payload", '{"args": [1]}', "--watch").ok()
    failed = person.apothic("run", "fails", "--app-name", "generators", "--payload", '{"args": [2]}')

    items = [json.loads(line) for line in plain.out.splitlines()]
    assert (items[0], items[2]) == (1, {"text": "Grüße \U0001f600"})
    assert [item["type"] for item in items[1::2]] == ["decimal.Decimal", "set"]
    assert (document.json["items"], document.json["result"]) == (["line 00000000", "line 00000001"], 2)
    assert (watched.out, "job.end" in watched.err) == ('"line 00000000"\n', True)
    assert (failed.status, failed.out) == (100, "0\n1\n")


def test_a_reader_of_the_command_line_that_leaves_cancels_the_job(cloud, person):
    process = person.popen(APOTHIC, "run", "forever", "--app-name", "generators", stdout=-1, stderr=-1)
    first = [process.stdout.readline() for _ in range(3)]
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    status = process.wait(DEADLINE_S)

    job = said.split("Nobody reads the output any more; ")[1].split()[0]
    assert (first, status) == (["0\n", "1\n", "2\n"], 1)
    assert cloud.job(job)["status"] == "cancelled"


def test_items_before_a_failure_are_in_the_document_of_the_command_line(person):
    ran = person.apothic("run", "fails", "--app-name", "generators", "--payload", '{"args": [2]}', "--json")

    assert (ran.status, ran.error["code"]) == (100, "exception")
    assert (ran.json["status"], ran.json["items"]) == ("failed", [0, 1])


@pytest.mark.parametrize("has_ended", [False, True])
def test_items_of_a_job_that_yields_none_are_refused_and_not_empty(person, has_ended):
    script(
        person,
        f"""
from apothic import InvalidRequestError
job = look("plain").spawn()
assert not {has_ended} or job.wait() == 1
try:
    list(job.wait_gen())
except InvalidRequestError as error:
    assert error.code == "not_a_generator", error.code
    assert "plain yields no items" in str(error), error
else:
    raise AssertionError("nothing was said")
assert job.wait() == 1
""",
    ).ok()


def test_a_slow_reader_pauses_the_generator_and_loses_nothing(cloud, person):
    process = person.popen(*person.script_command(HEAD + SLOW), stdin=-1, stdout=-1, stderr=-1)
    job = process.stdout.readline().strip()

    # 64 KiB an item: what is unread at the reader, in its window and in sockets is far less than all 2,000 of them.
    until(lambda: cloud.lines(job), "the generator began")
    produced = until(lambda: _stands_still(cloud, job), "the generator waits", deadline_s=60)
    out, err = process.communicate("go on\n", timeout=120)

    assert produced < 800
    assert out.strip() == "2000", err


SLOW = """
items = RemoteFunction.from_name("generators", "bulky").remote_gen(2_000, 64 * 1024)
assert next(items).startswith("0 ")
print(items.job_id, flush=True)
input()
count = 1
for item in items:
    assert item.startswith(f"{count} ")
    count += 1
print(count)
"""


def _stands_still(cloud, job):
    """Return how many items were yielded when that does not change over some looks."""
    seen = len(cloud.lines(job))
    for _ in range(10):
        cloud.request("GET", "/readyz")
    return seen if seen > 1 and len(cloud.lines(job)) == seen else None


def test_many_lines_pass_through_without_filling_the_servers_memory(cloud, person):
    before = resident_kb(cloud.pid)
    process = person.popen(*person.script_command(HEAD + COUNT), stdout=-1, stderr=-1)
    peak = before
    while process.poll() is None:
        peak = max(peak, resident_kb(cloud.pid))
    out, err = process.communicate(timeout=10)

    assert out.strip() == "200000", err
    assert peak - before < MEMORY_MB_MAX * 1024, f"the server grew by {(peak - before) // 1024} MiB"


COUNT = """
count = 0
for line in RemoteFunction.from_name("generators", "lines").remote_gen(200_000, 400):
    assert line[:13] == f"line {count:08d}"
    count += 1
print(count)
"""
