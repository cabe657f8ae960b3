"""The app of the tests about user code that goes wrong in every way, by mistake or on purpose."""

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

from apothic import App

app = App("hostile")

MIB = 1024 * 1024


@app.function(memory_mb=256)
def echo(value):
    return value


@app.function(memory_mb=256)
def flood(mib: int) -> str:
    """Write without ever ending a line."""
    block = b"x" * MIB
    for _ in range(mib):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view) :]
    return "written"


@app.function(memory_mb=256)
def close_stdio() -> str:
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return "closed"


@app.function(memory_mb=256)
def fork_and_exit() -> None:
    """Leave the answer to a child, which is not the one that was asked."""
    if os.fork():
        os._exit(0)
    threading.Event().wait(300)


@app.function(memory_mb=256)
def fork_and_return() -> str:
    return "child" if os.fork() == 0 else "parent"


@app.function(memory_mb=256)
def ignore_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ignoring", flush=True)
    while True:
        signal.pause()


@app.function(memory_mb=256)
def leave(how: str) -> None:
    raise {"exit": SystemExit(7), "base": BaseException("out"), "interrupt": KeyboardInterrupt()}[how]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Endless(Exception):
    def __str__(self) -> str:
        return "x" * self.args[0]


@app.function(memory_mb=256)
def fail_without_words() -> None:
    raise Unspeakable


@app.function(memory_mb=256)
def fail_at_length(mib: int) -> None:
    raise Endless(mib * MIB)


@app.function(memory_mb=256)
def unpicklable() -> object:
    return {"lock": threading.Lock()}


@app.function(memory_mb=256)
def kill_parent() -> None:
    print("killing", flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    threading.Event().wait(300)


@app.function(memory_mb=256)
def fill_disk() -> int:
    """Write into /tmp until something stops it."""
    written = 0
    with Path("/tmp/full").open("wb", buffering=0) as file:
        while True:
            written += file.write(b"x" * MIB)
    return written


@app.function(memory_mb=256)
def used_disk() -> list[str]:
    return sorted(path.name for path in Path("/tmp").iterdir())


@app.function(memory_mb=256)
def fill_descriptors() -> None:
    held = []
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))


@app.function(memory_mb=1024)
def fill_processes() -> str:
    """Fork until it is refused; the children wait for what never comes."""
    for number in range(100_000):
        try:
            if os.fork() == 0:
                while True:
                    signal.pause()
        except OSError as error:
            return f"{type(error).__name__} after {'some' if number else 'no'} children"
    return "no bound"


@app.function(memory_mb=256, timeout_s=2)
def hold_the_interpreter() -> None:
    """Sleep in C without giving up the interpreter's lock, so that no Python runs beside it."""
    print("holding", flush=True)
    ctypes.PyDLL(None).sleep(120)


@app.function(memory_mb=256)
def recurse(depth: int = 0) -> int:
    sys.setrecursionlimit(1_000_000_000)
    return recurse.python_function(depth + 1) + 1


if __name__ == "__main__":
    print(app.deploy())
