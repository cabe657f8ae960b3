"""Functions that call functions, as users write them."""

import asyncio
import functools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

from apothic import App, Job, RemoteFunction
from apothic.client import ControlPlaneClient
from apothic.errors import ConflictError, RemoteExecutionError

app = App("nested")


@app.function(memory_mb=256, max_containers=4)
def double(number):
    return 2 * number


@app.function(memory_mb=256)
def refuse(number):
    raise ValueError(f"no {number}")


@app.function(memory_mb=256)
def quadruple(number):
    return double.remote(double.remote(number))


@app.function(memory_mb=256)
def spawn_double(number):
    return double.spawn(number).job_id


@app.function(memory_mb=256)
def spawn_many(count):
    return spawn_double.map(range(count))


@app.function(memory_mb=256)
def by_name(number):
    return RemoteFunction.from_name("nested", "double").remote(number)


@app.function(memory_mb=256)
def in_the_background(numbers):
    jobs = [double.spawn(number) for number in numbers]
    states = [event.event for event in double.remote_events(7)]
    again = Job(jobs[0].job_id, ControlPlaneClient())
    return [*(job.wait() for job in jobs), again.wait(), states[-1]]


@app.function(memory_mb=256)
def follow_each_way(number):
    """Spawn, then follow: with one processor each child runs on that of this function, or never."""
    job = double.spawn(number)
    watched = [event.event for event in job.watch()][-1]
    waited = double.spawn(number).wait()
    followed = [event.event for event in double.remote_events(number)][-1]
    return [watched, waited, followed]


@app.function(memory_mb=256)
async def as_tasks(numbers):
    return await asyncio.gather(*(double.aio.remote(number) for number in numbers))


@app.function(memory_mb=256)
def in_threads(numbers):
    found = {}

    def work(number):
        found[number] = double.remote(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in numbers]


CHILD = """
import json, sys
sys.path += json.loads(sys.argv[1])
from apothic import RemoteFunction
print(RemoteFunction.from_name("nested", "double").remote(int(sys.argv[2])))
"""


@app.function(memory_mb=512)
def in_a_child(number):
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), str(number)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@app.function(memory_mb=256, tasks_per_container=4)
def beside_others(number):
    """Several calls in one runner; each one's children name it as their parent."""
    job = double.spawn(number)
    return [job.job_id, job.wait()]


both_are_here = threading.Barrier(2)


@app.function(memory_mb=256, tasks_per_container=2)
def in_a_bare_thread(number):
    """Beside another call, a thread without the context of its call cannot tell which one it belongs to."""
    outcomes = []

    def work():
        try:
            outcomes.append(double.remote(number))
        except ConflictError as error:
            outcomes.append(error.code)

    both_are_here.wait()
    for target in (work, functools.partial(copy_context().run, work)):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    both_are_here.wait()
    return outcomes


go_on = threading.Event()
left_behind = []
pool = ThreadPoolExecutor(2)


def ask_later():
    go_on.wait()
    try:
        left_behind.append(double.remote(1))
    except ConflictError as error:
        left_behind.append(error.code)


@app.function(memory_mb=256, max_containers=1)
def leave_a_thread(number):
    """The first call leaves a thread behind, which calls another function during the second one."""
    doubled = list(pool.map(double.remote, [number, number + 1]))
    if number == 0:
        threading.Thread(target=ask_later, daemon=True, name="left").start()
        return doubled
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "left":
            thread.join()
    return [*doubled, *left_behind]


@app.function(memory_mb=256)
def two_levels(number):
    try:
        return refuse.remote(number)
    except RemoteExecutionError as error:
        raise LookupError("the inner call failed") from error


@app.function(memory_mb=256)
def first_level(number):
    return two_levels.remote(number)


@app.function(memory_mb=256)
def hold(path):
    print("holding", flush=True)
    threading.Event().wait(300)


@app.function(memory_mb=256)
def wait_for_hold(path):
    print("calling", flush=True)
    return hold.remote(path)


@app.function(memory_mb=256)
def what_is_seen(_=None):
    return {
        "environment": sorted(name for name in os.environ if name.startswith("APOTHIC")),
        "url": ControlPlaneClient().base_url,
        "authorization": ControlPlaneClient().endpoint.authorization,
        "beside": sorted(path.name for path in Path("/run/apothic").iterdir()),
    }


@app.function(memory_mb=256)
def ask(method, path, headers):
    answer = ControlPlaneClient().request(method, path, headers=headers)
    return [answer.status, json.loads(answer.body or b"null")]


@app.function(memory_mb=256)
def chain6(number):
    return number


@app.function(memory_mb=256)
def chain5(number):
    return chain6.remote(number + 1)


@app.function(memory_mb=256)
def chain4(number):
    return chain5.remote(number + 1)


@app.function(memory_mb=256)
def chain3(number):
    return chain4.remote(number + 1)


@app.function(memory_mb=256)
def chain2(number):
    return chain3.remote(number + 1)


@app.function(memory_mb=256)
def chain1(number):
    return chain2.remote(number + 1)


@app.function(memory_mb=256)
def itself(number):
    return itself.remote(number - 1) if number else "bottom"


@app.function(memory_mb=256, max_containers=3)
def itself_with_room(number):
    return itself_with_room.remote(number - 1) if number else "bottom"


app.deploy()
