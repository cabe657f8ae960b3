"""A large argument and a large result against one copy of each through a socket, in one run and one table (P21).

Each call carries bytes that no call carried before, so everything is moved and hashed.

Usage: bulk.py [--quick] [--json FILE] [--rounds N] [--size BYTES] [--over-http]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _contenders import Broken
from _measuring import Options, Report, run
from _processes import anonymous, roles
from _verdict import at_most, megabytes, seconds
from clouds import APPS, cloud, deploy

MB = 1_000_000
LOOK_S = 0.05
SHOWN_FROM = 1_000 * MB
"""From this size on the digests of what was sent and of what came back are printed."""


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "one round of 10 MB")
    options.number("rounds", 5, 1, "calls")
    options.add_argument("--size", type=_size, help="bytes each way, such as 4GiB (default 100MB)")
    options.add_argument("--over-http", action="store_true", help="a client that was given the address and a key")
    given = options.read()
    given.size = given.size or (10 * MB if given.quick else 100 * MB)
    return run(_measure, given)


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    place = stack.enter_context(cloud(folder))
    deploy("blocks")
    if not options.over_http:
        _find_by_file(folder)
    found = _rounds(options, place["pid"])
    grown = " and ".join(f"{name} by {megabytes(size)}" for name, size in found["grown_bytes"].items())
    spent = ", ".join(f"{name} {_milliseconds(s)}" for name, s in found["processor_s"].items())
    call = (found["call_s"], 3, 1.5)
    beside = ("two socket copies", found["copy_s"])
    return Report(
        title="Large values",
        text=f"{options.size / MB:,.0f} MB each way, median of {options.rounds}. Processor time a call: {spent}. "
        f"Memory grew: {grown}",
        goals=[at_most("P21", "a large argument and result", *call, beside=beside, show=seconds)],
        figures={"size_bytes": options.size, **found},
    )


def _find_by_file(folder: Path) -> None:
    """Let the SDK of this process find the cloud as that of its user does: by the endpoint file."""
    (folder / ".apothic").mkdir()
    (folder / ".apothic" / "endpoint.json").symlink_to(folder / "endpoint.json")
    os.environ["HOME"] = str(folder)
    del os.environ["APOTHIC_BASE_URL"], os.environ["APOTHIC_API_KEY"]


def _rounds(options: argparse.Namespace, pid: int) -> dict[str, Any]:
    sys.path.append(str(APPS))
    from blocks import Block

    from apothic import RemoteFunction

    echo = RemoteFunction.from_name("bench-bulk", "echo")
    echo.remote(Block(bytearray(2 * MB)))
    memory = _anonymous(pid)
    peaks = dict(memory)
    watching = threading.Event()
    watcher = threading.Thread(target=_watch, args=(pid, peaks, watching))
    watcher.start()
    data = bytearray(options.size)
    busy, own_s = _busy(pid), 0.0
    calls: list[float] = []
    copies: list[float] = []
    for number in range(options.rounds):
        data[:16] = os.urandom(8) + number.to_bytes(8, "big")
        began, own = time.perf_counter(), time.process_time()
        back = echo.remote(Block(data), timeout_s=3600)
        calls.append(time.perf_counter() - began)
        own_s += time.process_time() - own
        if back.data[:16] != data[:16] or len(back.data) != len(data):
            raise Broken("other bytes came back")
        if options.size >= SHOWN_FROM:
            print(f"sent     {hashlib.sha256(data).hexdigest()}\nreceived {hashlib.sha256(back.data).hexdigest()}")
        del back
        copies.append(_copied(memoryview(data)) + _copied(memoryview(data)))
    spent = {"client": own_s, **{name: s - busy.get(name, 0.0) for name, s in _busy(pid).items()}}
    each = {name: s / options.rounds for name, s in spent.items()}
    watching.set()
    watcher.join()
    grown = {name: peak - memory.get(name, 0) for name, peak in peaks.items() if name != "postgres"}
    call_s, copy_s = statistics.median(calls), statistics.median(copies)
    return {"call_s": call_s, "copy_s": copy_s, "processor_s": each, "grown_bytes": grown}


def _copied(whole: memoryview) -> float:
    """Return the seconds that the bytes take through a pair of sockets into memory; of many a part is measured."""
    data = whole[: 1000 * MB]
    here, there = socket.socketpair()
    into = bytearray(len(data))
    began = time.perf_counter()
    sender = threading.Thread(target=here.sendall, args=(data,))
    sender.start()
    at, view = 0, memoryview(into)
    while at < len(into):
        at += there.recv_into(view[at : at + MB])
    sender.join()
    seconds = time.perf_counter() - began
    here.close()
    there.close()
    return seconds * len(whole) / len(data)


def _watch(pid: int, peaks: dict[str, int], end: threading.Event) -> None:
    while not end.wait(LOOK_S):
        for name, size in _anonymous(pid).items():
            peaks[name] = max(size, peaks.get(name, 0))


def _anonymous(pid: int) -> dict[str, int]:
    """Return the memory of the largest process of each role now, in bytes; files are the page cache's."""
    return {name: max(anonymous(one) for one in pids) for name, pids in roles(pid).items()}


def _busy(pid: int) -> dict[str, float]:
    """Return the seconds of processor time so far of each role, threads that have ended included."""
    return {name: sum(_ran_s(one) for one in pids) for name, pids in roles(pid).items()}


def _ran_s(pid: int) -> float:
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _milliseconds(value: float) -> str:
    """Write a part of a second for people."""
    return f"{value * 1000:,.0f} ms"


def _size(text: str) -> int:
    units = {"MB": MB, "GB": 1000 * MB, "MiB": 1024**2, "GiB": 1024**3}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return int(float(text.removesuffix(unit)) * units.get(unit, 1))


if __name__ == "__main__":
    sys.exit(main())
