"""Generators that the tests of the whole system read: one function for each thing that can happen to items."""

import asyncio
import os
import threading
import time
from decimal import Decimal
from pathlib import Path

from apothic import App

app = App("generators")


@app.function(memory_mb=256)
def lines(count, width=0):
    padding = "." * width
    for number in range(count):
        yield f"line {number:08d}{padding}"
    return count


@app.function(memory_mb=256)
def mixed():
    yield 1
    yield Decimal("1.50")
    yield {"text": "Grüße \U0001f600"}
    yield {1, 2}


@app.function(memory_mb=256)
async def later(count):
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        print("cleaned up")


@app.function(memory_mb=256)
def fails(count):
    yield from range(count)
    raise ValueError("the meter broke")


@app.function(memory_mb=256)
def unserializable():
    yield 1
    yield threading.Lock()


@app.function(memory_mb=256)
def large():
    yield "x" * 900_000
    try:
        yield "x" * 2_000_000
    finally:
        print("cleaned up")


@app.function(memory_mb=256)
def forever(stubborn=False):
    number = 0
    while True:
        try:
            yield number
        except GeneratorExit:
            if not stubborn:
                raise
        number += 1


@app.function(memory_mb=256)
def bulky(count, size):
    """Say how far it is, because a reader cannot see what waits."""
    for number in range(count):
        yield f"{number} " + "x" * size
        print("yielded", number, flush=True)


@app.function(memory_mb=256)
def from_threads(count):
    found = []
    threads = [threading.Thread(target=found.append, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
        thread.join()
        yield from found[len(found) - 1 :]


@app.function(memory_mb=256)
def one_and_wait():
    yield os.getpid()
    time.sleep(600)


@app.function(memory_mb=256, tasks_per_container=3, max_containers=1)
def together(name, count):
    for number in range(count):
        yield [name, number]


@app.function(memory_mb=256, tasks_per_container=3, max_containers=1)
async def together_async(name, count):
    for number in range(count):
        await asyncio.sleep(0)
        yield [name, number]


@app.function(memory_mb=256)
def forks():
    yield "before"
    if os.fork() == 0:
        yield "child"
    else:
        os.wait()
    yield "after"


@app.function(memory_mb=256, retries=1)
def fails_once(count):
    for number in range(count):
        yield number
        if number == 2 and not Path("/tmp/failed").exists():
            Path("/tmp/failed").touch()
            raise ValueError("the first attempt")


@app.function(memory_mb=256)
def plain():
    return 1


@app.function(memory_mb=256)
def elsewhere():
    return iter_elsewhere()


def iter_elsewhere():
    yield 1


app.deploy()
