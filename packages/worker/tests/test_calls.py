"""Calls through a real worker, a real sandbox and the real runtime."""

import hashlib
import json
from pathlib import Path

import pytest

from apothic.wire import link
from apothic.wire.limits import LOG_LINE_MAX
from apothic_server.testing.guarantees import guarantee
from apothic_worker.testing.scripted_server import Deployed, ScriptedServer, pack

pytestmark = pytest.mark.anyio

APP = """
import asyncio, os, signal, subprocess, sys, threading, time
print("imported")

def add(a, b):
    return a + b

def pid():
    return [os.getpid(), len(os.listdir("/proc/self/task"))]

def fail(text):
    raise ValueError(text)

async def later(x):
    await asyncio.sleep(0)
    return x * 2

def talk(n):
    for i in range(n):
        print("line", i)
    sys.stderr.write("problem\\n")
    os.write(1, b"\\xff\\x00raw\\nno end")
    return n

def long_line():
    print("x" * 40000)

def flood(size):
    block = ("y" * 99 + "\\n") * 1000
    for _ in range(size // len(block)):
        sys.stdout.write(block)

def sleep(s):
    print("asleep", flush=True)
    time.sleep(s)
    return "woke"

def clean_up():
    try:
        print("begun", flush=True)
        time.sleep(600)
    finally:
        print("cleaned", flush=True)

def clean_up_items():
    try:
        while True:
            print("begun", flush=True)
            yield 1
            time.sleep(600)
    finally:
        print("cleaned", flush=True)

async def clean_up_later():
    try:
        print("begun", flush=True)
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0)
        print("cleaned", flush=True)

async def clean_up_items_later():
    try:
        print("begun", flush=True)
        yield 1
        await asyncio.sleep(600)
    finally:
        print("cleaned", flush=True)

def clean_up_threads():
    threading.Thread(target=time.sleep, args=(600,)).start()
    clean_up()

def with_children():
    children = [subprocess.Popen(["sleep", "600"])]
    if (pid := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    clean_up()

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    time.sleep(600)

def leave(code):
    os._exit(code)

def kill_self():
    os.kill(os.getpid(), signal.SIGSEGV)

def eat():
    found = []
    while True:
        found.append(bytearray(8 * 1024 * 1024))

def detach():
    marker = "apothic-test-%d" % os.getpid()
    script = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nif os.fork(): os._exit(0)\\ntime.sleep(600)"
    subprocess.Popen([sys.executable, "-c", script, marker]).wait()
    return marker

def thread():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

def fork_bomb():
    made = 0
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
            made += 1
    except OSError:
        return made

async def meet(name, total):
    here.append(name)
    while len(here) < total:
        await asyncio.sleep(0.001)
    print("met", name)
    return name

async def wait_for_ever():
    print("waiting", flush=True)
    await asyncio.Event().wait()

async def crash_all(name, total):
    await meet(name, total)
    os._exit(7)

def busy(name):
    print("busy", name, flush=True)
    time.sleep(600)

here = []
"""


@pytest.fixture(scope="module")
def app(cloud: ScriptedServer) -> Deployed:
    return cloud.deploy({"app.py": APP, "package/inner.py": "x = 1\n"})


async def printed(cloud: ScriptedServer, order: link.Assign, text: str) -> None:
    """Wait until the attempt wrote the line."""
    await cloud.wait_for(
        link.Logs, lambda item: item.job == order.job and any(line.text == text for line in item.lines)
    )


async def test_a_runner_and_its_first_call_may_come_in_one_message(cloud, app):
    runner = cloud.runner(app, "add")
    order = cloud.assignment(runner.runner, 1, 2)
    await cloud.send(start_runner=[runner], assign=[order])

    end = await cloud.finished(order)

    assert (end.outcome, end.value.data) == ("succeeded", b"3")
    assert cloud.items.index(end) > cloud.items.index(await cloud.wait_for(link.Started, lambda i: i.job == order.job))


async def test_a_warm_runner_is_used_again(cloud, app):
    runner = await cloud.started_runner(app, "pid")

    first, second = await cloud.call(runner), await cloud.call(runner)

    assert first.value.data == second.value.data
    assert json.loads(first.value.data)[1] == 1


async def test_an_exception_is_data_and_spares_the_runner(cloud, app):
    runner = await cloud.started_runner(app, "fail")

    first, second = await cloud.call(runner, "a"), await cloud.call(runner, "b")

    assert (first.outcome, first.error.type, first.error.message) == ("failed", "builtins.ValueError", "a")
    assert second.error.message == "b"


async def test_an_async_function_is_awaited(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "later", is_async=True), 21)

    assert end.value.data == b"42"


async def test_all_output_comes_before_the_end(cloud, app):
    runner = await cloud.started_runner(app, "talk")
    await cloud.call(runner, 0)
    end = await cloud.call(runner, 500)

    place = next(n for n, item in enumerate(cloud.items) if item is end)
    logs = [n for n, item in enumerate(cloud.items) if isinstance(item, link.Logs) and item.job == end.job]
    assert max(logs) < place
    assert cloud.lines(end, stream="stdout") == [*(f"line {n}" for n in range(500)), "\ufffdraw", "no end"]
    assert cloud.lines(end, stream="stderr") == ["problem"]


async def test_output_of_the_import_belongs_to_the_first_call(cloud):
    fresh = cloud.deploy({"app.py": APP + "\n# other\n"})
    end = await cloud.call(await cloud.started_runner(fresh, "add"), 1, 1)

    assert cloud.lines(end) == ["imported"]


async def test_a_long_line_is_split_and_marked(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "long_line"))

    lines = [line for item in cloud.items if isinstance(item, link.Logs) and item.job == end.job for line in item.lines]
    assert [line.is_partial for line in lines] == [True, True, False]
    assert "".join(line.text for line in lines) == "x" * 40000
    assert max(len(line.text) for line in lines) == LOG_LINE_MAX


@guarantee("G5.8", "log_loss_is_visible")
async def test_a_flood_of_output_is_cut_and_the_loss_is_told(cloud, app):
    size = 8_000_000
    end = await cloud.call(await cloud.started_runner(app, "flood"), size)

    kept = sum(len(line) + 1 for line in cloud.lines(end, stream="stdout") if line != "imported")
    notes = cloud.lines(end, stream="system")
    assert kept < size
    assert sum(int(note.split()[0]) for note in notes) == size - kept


async def test_a_timeout_ends_attempt_and_runner(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    end = await cloud.call(runner, 600, timeout_s=1)

    assert (end.outcome, end.error.code) == ("timed_out", "timeout")
    assert 1000 <= end.ran_ms < 5000
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_a_deadline_ends_an_attempt_that_runs(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    end = await cloud.call(runner, 600, timeout_s=600, deadline_left_s=1)

    assert (end.outcome, end.error.code) == ("timed_out", "deadline_exceeded")
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_a_deadline_ends_an_attempt_that_waits_for_its_turn_and_spares_the_one_that_runs(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    running = cloud.assignment(runner, 600)
    await cloud.send(assign=[running])
    await printed(cloud, running, "asleep")

    waited = await cloud.call(runner, 0, deadline_left_s=1)
    await cloud.send(cancel=[link.Cancel(running.job, running.fence, 10.0)])

    assert (waited.outcome, waited.error.code, waited.ran_ms) == ("timed_out", "deadline_exceeded", 0)
    assert (await cloud.finished(running)).outcome == "cancelled"


async def test_a_start_ends_at_its_own_limit_and_spares_a_more_patient_one(cloud):
    slow = cloud.deploy({"app.py": "import time\ntime.sleep(3)\ndef one():\n    return 1\n"})
    orders = [cloud.runner(slow, "one", startup_timeout_s=seconds) for seconds in (1, 60)]
    calls = [cloud.assignment(order.runner) for order in orders]
    await cloud.send(start_runner=orders, assign=calls)

    impatient, patient = [await cloud.finished(call) for call in calls]

    assert (impatient.outcome, impatient.error.code, impatient.ran_ms) == ("timed_out", "startup_timeout", 0)
    assert patient.outcome == "succeeded"


async def test_cancel_stops_a_running_attempt(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    order = cloud.assignment(runner, 600)
    await cloud.send(assign=[order])
    await printed(cloud, order, "asleep")
    await cloud.send(cancel=[link.Cancel(order.job, order.fence, 10.0)])

    end = await cloud.finished(order)

    assert (end.outcome, end.error) == ("cancelled", None)
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


@guarantee("G4.2", "no_process_left")
@pytest.mark.parametrize(
    "function",
    ["clean_up", "clean_up_items", "clean_up_later", "clean_up_items_later", "clean_up_threads", "with_children"],
)
@pytest.mark.parametrize("end", ["cancelled", "timed_out"])
async def test_what_is_stopped_cleans_up_and_ends_long_before_it_would_be_killed(cloud, app, function, end):
    runner = await cloud.started_runner(app, function, is_async=function.endswith("later"))
    order = cloud.assignment(runner, timeout_s=600 if end == "cancelled" else 2)
    await cloud.send(assign=[order])
    await printed(cloud, order, "begun")
    if end == "cancelled":
        await cloud.send(cancel=[link.Cancel(order.job, order.fence, 600.0)])
    finished = await cloud.finished(order)

    assert finished.outcome == end
    assert "cleaned" in cloud.lines(order)


async def test_cancel_takes_a_waiting_attempt_out_of_the_queue(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    first, second = cloud.assignment(runner, 600), cloud.assignment(runner, 600)
    await cloud.send(assign=[first, second])
    await printed(cloud, first, "asleep")
    await cloud.send(cancel=[link.Cancel(second.job, second.fence, 10.0)])

    end = await cloud.finished(second)
    await cloud.send(cancel=[link.Cancel(first.job, first.fence, 10.0)])

    assert (end.outcome, end.ran_ms) == ("cancelled", 0)
    assert (await cloud.finished(first)).outcome == "cancelled"


async def test_who_ignores_term_is_killed(cloud, app):
    order = cloud.assignment(await cloud.started_runner(app, "stubborn"))
    await cloud.send(assign=[order])
    await printed(cloud, order, "stubborn")
    await cloud.send(cancel=[link.Cancel(order.job, order.fence, 0.3)])

    assert (await cloud.finished(order)).outcome == "cancelled"


async def test_the_same_assign_twice_is_one_attempt(cloud, app):
    runner = await cloud.started_runner(app, "add")
    order = cloud.assignment(runner, 1, 1)
    await cloud.send(assign=[order, order])
    await cloud.finished(order)
    await cloud.call(runner, 2, 2)

    assert sum(isinstance(item, link.Finished) and item.job == order.job for item in cloud.items) == 1


@pytest.mark.parametrize(
    ("function", "arguments", "code", "word"),
    [("leave", [3], "exited", "code 3"), ("kill_self", [], "killed_by_signal", "SIGSEGV")],
)
async def test_the_death_of_a_runner_fails_its_attempt(cloud, app, function, arguments, code, word):
    runner = await cloud.started_runner(app, function)
    end = await cloud.call(runner, *arguments)

    assert (end.outcome, end.error.code) == ("failed", code)
    assert word in end.error.message
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_too_much_memory_is_told_apart_from_other_deaths(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "eat", memory_mb=64))

    assert (end.outcome, end.error.code) == ("failed", "out_of_memory")
    assert "64 MiB" in end.error.message


@guarantee("G4.2", "no_process_left")
async def test_processes_left_by_a_call_are_dead_when_its_end_is_told(cloud, app):
    runner = await cloud.started_runner(app, "detach")
    end = await cloud.call(runner)

    assert end.outcome == "succeeded"
    assert json.loads(end.value.data) not in commands()
    ended = await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)
    assert "left processes" in ended.reason


async def test_a_thread_left_by_a_call_is_no_process(cloud, app):
    runner = await cloud.started_runner(app, "thread")

    assert [(await cloud.call(runner)).outcome for _ in range(3)] == ["succeeded"] * 3


@guarantee("G4.2", "no_process_left")
async def test_a_fork_bomb_is_bounded_and_gone_afterwards(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "fork_bomb", memory_mb=4096))

    assert end.outcome == "succeeded"
    assert 500 < json.loads(end.value.data) < 1100


async def test_several_tasks_run_at_once_with_logs_of_their_own(cloud, app):
    runner = await cloud.started_runner(app, "meet", tasks=3, is_async=True)
    orders = [cloud.assignment(runner, name, 3) for name in "abc"]
    await cloud.send(assign=orders)

    ends = [await cloud.finished(order) for order in orders]

    assert [end.outcome for end in ends] == ["succeeded"] * 3
    assert [cloud.lines(order)[-1] for order in orders] == ["met a", "met b", "met c"]


@guarantee("G4.2", "cancel_spares_neighbours")
async def test_cancelling_one_of_several_tasks_spares_the_others(cloud, app):
    runner = await cloud.started_runner(app, "wait_for_ever", tasks=2, is_async=True)
    first, second = cloud.assignment(runner), cloud.assignment(runner)
    await cloud.send(assign=[first, second])
    await printed(cloud, first, "waiting")
    await printed(cloud, second, "waiting")
    await cloud.send(cancel=[link.Cancel(first.job, first.fence, 10.0)])

    assert (await cloud.finished(first)).outcome == "cancelled"
    assert not any(isinstance(item, link.RunnerEnded) and item.runner == runner for item in cloud.items)
    await cloud.send(cancel=[link.Cancel(second.job, second.fence, 10.0)])
    assert (await cloud.finished(second)).outcome == "cancelled"


async def test_a_task_that_cannot_be_cancelled_takes_its_neighbours_along_as_lost(cloud, app):
    runner = await cloud.started_runner(app, "busy", tasks=2)
    first, second = cloud.assignment(runner, "1"), cloud.assignment(runner, "2")
    await cloud.send(assign=[first, second])
    await printed(cloud, first, "busy 1")
    await printed(cloud, second, "busy 2")
    await cloud.send(cancel=[link.Cancel(first.job, first.fence, 0.2)])

    assert (await cloud.finished(first)).outcome == "cancelled"
    lost = await cloud.finished(second)
    assert (lost.outcome, lost.error.code) == ("lost", "worker_lost")


async def test_the_death_of_a_runner_fails_all_its_tasks(cloud, app):
    runner = await cloud.started_runner(app, "crash_all", tasks=2, is_async=True)
    orders = [cloud.assignment(runner, name, 2) for name in "ab"]
    await cloud.send(assign=orders)

    ends = [await cloud.finished(order) for order in orders]

    assert [(end.outcome, end.error.code) for end in ends] == [("failed", "exited")] * 2


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"app.py": "def add(:\n"}, "SyntaxError"),
        ({"app.py": "import no_such_module\n"}, "no_such_module"),
        ({"app.py": "x = 1\n"}, "add"),
        ({"other.py": "x = 1\n"}, "app"),
        ({"app.py": "import os\nos._exit(5)\n"}, "code 5"),
    ],
)
async def test_an_app_that_cannot_be_loaded_fails_its_attempts(cloud, files, word):
    runner = await cloud.started_runner(cloud.deploy(files), "add")
    end = await cloud.call(runner, 1, 2)

    assert (end.outcome, end.error.code) == ("failed", "load_failed")
    assert word in f"{end.error.type} {end.error.message}"
    await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)


async def test_an_app_that_starts_threads_at_import_is_loaded_in_each_runner(cloud):
    threaded = cloud.deploy(
        {
            "app.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
            + APP
        }
    )
    end = await cloud.call(await cloud.started_runner(threaded, "pid"))

    assert json.loads(end.value.data)[1] == 2


async def test_an_unknown_python_is_refused_by_name(cloud, app):
    end = await cloud.call(await cloud.started_runner(app, "add", python="3.99"), 1, 2)

    assert (end.outcome, end.error.code) == ("failed", "python_not_available")
    assert "3.99" in end.error.message
    assert "3.11" in end.error.message


async def test_a_deployment_that_is_gone_fails(cloud):
    end = await cloud.call(await cloud.started_runner(Deployed("gone", "0" * 64), "add"), 1, 2)

    assert (end.outcome, end.error.code) == ("failed", "deployment_deleted")


async def test_an_archive_with_a_bad_name_is_refused(cloud):
    data = pack({"../app.py": APP})
    cloud.archives["evil"] = data
    end = await cloud.call(await cloud.started_runner(Deployed("evil", hashlib.sha256(data).hexdigest()), "add"), 1, 2)

    assert (end.outcome, end.error.code) == ("failed", "load_failed")
    assert "'../app.py'" in end.error.message


async def test_an_assign_for_an_unknown_runner_is_lost(cloud):
    end = await cloud.call("nobody")

    assert (end.outcome, end.error.code) == ("lost", "worker_lost")


async def test_an_idle_runner_ends_when_told_and_a_busy_one_does_not(cloud, app):
    runner = await cloud.started_runner(app, "sleep")
    await cloud.call(runner, 0)
    order = cloud.assignment(runner, 0.3)
    await cloud.send(assign=[order])
    await cloud.send(stop_runner=[link.StopRunner(runner)])
    assert (await cloud.finished(order)).outcome == "succeeded"
    await cloud.send(stop_runner=[link.StopRunner(runner)])

    ended = await cloud.wait_for(link.RunnerEnded, lambda item: item.runner == runner)

    assert ended.reason == "stopped"


async def test_a_runner_has_its_limits(cloud, app, group_file):
    runner = await cloud.started_runner(app, "sleep", cpu=2, memory_mb=100)
    await cloud.call(runner, 0)

    memory = group_file(runner, "memory.limit_in_bytes")
    quota = group_file(runner, "cpu.cfs_quota_us")
    assert int(memory.read_text()) == 100 * 1024 * 1024
    assert int(quota.read_text()) == 200_000


def commands() -> set[str]:
    """Every argument of every process of the machine."""
    found: set[str] = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found.update((folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0"))
            except OSError:
                continue
    return found


async def test_the_death_of_the_common_parent_loses_attempts_and_the_next_runner_gets_a_new_one(cloud):
    app = cloud.deploy(
        {"app.py": "import os, signal\ndef strike():\n    os.kill(os.getppid(), signal.SIGKILL)\n    signal.pause()\n"}
    )
    end = await cloud.call(await cloud.started_runner(app, "strike"))
    again = await cloud.call(await cloud.started_runner(app, "strike"))

    assert [(found.outcome, found.error.code) for found in (end, again)] == [("lost", "worker_lost")] * 2


async def test_frames_made_up_by_user_code_end_the_runner_and_nothing_else(cloud):
    code = """
import os
from apothic.wire.frames import encode_frame
def lie():
    for fd in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{fd}") or os.readlink(f"/proc/self/fd/{fd}").startswith("socket"):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket"):
                os.write(int(fd), encode_frame({"kind": "result", "call": "1", "encoding": "evil", "python": None}))
    return "lied"
"""
    end = await cloud.call(await cloud.started_runner(cloud.deploy({"app.py": code}), "lie"))
    good = await cloud.call(await cloud.started_runner(cloud.deploy({"app.py": APP}), "add"), 1, 2)

    assert end.outcome == "failed"
    assert good.value.data == b"3"
