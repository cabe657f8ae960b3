"""Functions that are called more often than they can be executed."""

import os
import time
from pathlib import Path

from apothic import App

app = App("load")


@app.function(memory_mb=128, max_containers=2)
def square(number):
    return number * number


@app.function(memory_mb=128, max_containers=3, tasks_per_container=2, max_pending_tasks=1000)
def when(number):
    """Tell which process executed the call and when, by the machine's own clock; it takes a few milliseconds."""
    began = time.monotonic()
    time.sleep(0.003)
    return [f"{Path('/proc/self/ns/pid').readlink()} {os.getpid()}", began, time.monotonic()]


if __name__ == "__main__":
    app.deploy()
