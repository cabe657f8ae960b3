"""Functions that are called for several calls at once."""

import asyncio
import ctypes
import os
import signal
import threading
import time

from apothic import App, BatchingSpec, RemoteFunction

PR_SET_NAME = 15

app = App("batches")


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=32, wait_ms=2_000))
def sizes(items):
    return [[item, len(items)] for item in items]


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=4, wait_ms=600_000))
def together(items, factor=10):
    print("together:", *items)
    return [item * of for item, of in zip(items, [10] * len(items) if factor == 10 else factor, strict=True)]


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=4, wait_ms=600_000))
async def later(items):
    await asyncio.sleep(0.01)
    return tuple(item + 1 for item in items)


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=3, wait_ms=600_000), retries=1)
def picky(items):
    return [ValueError(f"{item} is refused") if item < 0 else item for item in items]


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=3, wait_ms=600_000))
def broken(items):
    if 0 in items:
        raise ValueError("one is zero")
    return items[1:]


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=3, wait_ms=600_000))
def held(items):
    """Wait, as a process named `batch-gate`, for the signal that lets the batch go on."""
    opened = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: opened.set())
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"batch-gate", 0, 0, 0)
    print("holding", *items, flush=True)
    while not opened.wait(0.1):  # a signal does not end a wait, but its handler runs between two
        pass
    print("going on")
    return [len(items)] * len(items)


@app.function(memory_mb=256, timeout_s=1, batching=BatchingSpec(max_batch_size=2, wait_ms=600_000))
def endless(items):
    time.sleep(600)


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=2))
def nested(items):
    return RemoteFunction.from_name("batches", "plain").map(items)


@app.function(memory_mb=256)
def plain(item):
    return item + 1


@app.function(memory_mb=256, batching=BatchingSpec(max_batch_size=2, wait_ms=600_000))
def leave(items):
    os._exit(3)


app.deploy()
