"""The app that the tests of the whole system call: one function for each thing that can happen to a job."""

import asyncio
import ctypes
import itertools
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime

from apothic import App

app = App("jobs")

PR_SET_NAME = 15

counted = 0


@dataclass
class Parcel:
    """A value that is no JSON and whose class lives in the program's file."""

    name: str
    sent: datetime
    tags: set[str] = field(default_factory=set)
    content: bytes = b""


@app.function(memory_mb=256)
def echo(value):
    return value


@app.function(memory_mb=256)
def tally() -> int:
    """Return how often this ran; one runner runs it, one call at a time."""
    global counted
    counted += 1
    return counted


@app.function(memory_mb=256)
def stamp(parcel: Parcel) -> Parcel:
    return Parcel(parcel.name.upper(), parcel.sent, {*parcel.tags, "stamped"}, parcel.content[::-1])


@app.function(memory_mb=256)
def wait(seconds: float) -> str:
    print("waiting", flush=True)
    threading.Event().wait(seconds)
    return "waited"


@app.function(memory_mb=256)
def chatter() -> int:
    """Print numbers, a hundred a second, until the signal comes that opens a gate; return how many."""
    opened = _gate()
    for number in itertools.count():
        print(number, flush=True)
        if opened.wait(0.01):
            return number + 1
    raise AssertionError


def _gate() -> threading.Event:
    opened = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: opened.set())
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"gate", 0, 0, 0)
    return opened


@app.function(memory_mb=256, max_containers=2)
def gate() -> str:
    """Wait, as a process named `gate`, for the signal that opens it."""
    opened = _gate()
    print("waiting", flush=True)
    while not opened.wait(0.1):  # a signal does not end a wait, but its handler runs between two
        pass
    print("opened", flush=True)
    return "opened"


@app.function(memory_mb=256, disconnect_grace_s=600)
def patient() -> str:
    """Wait, as a process named `patient`, for a signal, and keep on when the machine is cut off."""
    opened = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: opened.set())
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"patient", 0, 0, 0)
    print("waiting", flush=True)
    while not opened.wait(0.1):
        pass
    return "opened"


@app.function(memory_mb=256)
def stubborn() -> None:
    """Wait for ever, as a process named `stubborn` that heeds no TERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"stubborn", 0, 0, 0)
    print("waiting", flush=True)
    while True:
        threading.Event().wait(60)


@app.function(memory_mb=256, timeout_s=1)
def too_long() -> None:
    print("waiting", flush=True)
    threading.Event().wait(60)


@app.function(memory_mb=256)
def fail(what: str) -> None:
    try:
        {}[what]
    except KeyError as error:
        raise ValueError(f"no {what} here") from error


@app.function(memory_mb=256)
async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@app.function(memory_mb=256)
def speak(name: str, lines: int) -> int:
    for number in range(lines):
        print(f"{name} {number}")
    print(f"{name} complains", file=sys.stderr)
    os.write(1, f"{name} without Python\n".encode())
    return lines


@app.function(memory_mb=256)
def die(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


@app.function(memory_mb=256)
def leave() -> None:
    os._exit(3)


@app.function(memory_mb=64)
def grow(mib: int) -> int:
    return len(b"x" * (mib * 1024 * 1024))


@app.function(memory_mb=256)
def crowd() -> str:
    """Leave processes named `crowd` behind, outside the session and the family of this one."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"crowd", 0, 0, 0)
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                threading.Event().wait(300)
            os._exit(0)
    return "left"


@app.function(memory_mb=256)
def unsendable():
    return threading.Lock()


@app.function(memory_mb=256)
def big(size: int) -> bytes:
    return b"x" * size


@app.function(memory_mb=256, tasks_per_container=2)
async def neighbours(seconds: float) -> str:
    print("waiting", flush=True)
    await asyncio.sleep(seconds)
    return "undisturbed"


if __name__ == "__main__":
    print(app.deploy())
