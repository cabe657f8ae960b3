"""Functions to map over, as users write them."""

import os
import time

from apothic import App, JobGroup, RemoteFunction
from apothic.client import ControlPlaneClient

app = App("maps")


@app.function(memory_mb=256, max_containers=2)
def double(item):
    return item * 2


@app.function(memory_mb=256)
def add(first, second=0):
    return first + second


@app.function(memory_mb=256)
async def halve(item):
    return item / 2


@app.function(memory_mb=256, max_containers=2)
def picky(item):
    if item % 7 == 3:
        raise ValueError(f"{item} is refused")
    return item


@app.function(memory_mb=256)
def loud(item):
    print("item", item)
    return item


@app.function(memory_mb=256, max_containers=2)
def lasting(item):
    time.sleep(0.005)
    return item


@app.function(memory_mb=256)
def endless(item):
    time.sleep(600)


@app.function(memory_mb=256, max_containers=2)
def suicidal(item):
    if item == 40:
        os._exit(3)
    return item


@app.function(memory_mb=256)
def kinds(items):
    return {type(item).__name__ for item in items}


@app.function(memory_mb=256)
def outer(count):
    jobs = double.spawn_map(range(count)) if count < 5 else None
    spawned = sum(job.wait() for job in jobs) if jobs is not None else 0
    return spawned + sum(RemoteFunction.from_name("maps", "double").map(range(count)))


@app.function(memory_mb=256)
def waits_for(group_id):
    return JobGroup(group_id, ControlPlaneClient.from_env()).results()


app.deploy()
