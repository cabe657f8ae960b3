"""A large argument and a large result against one copy of each through a socket, in one run and one table (P21).

Each call carries bytes that no call carried before, so everything is moved and hashed.

Usage: bulk.py [--quick] [--json FILE] [--rounds N] [--size BYTES]

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
from _processes import resident, roles
from _verdict import at_most, megabytes, seconds
from clouds import APPS, cloud, deploy

MB = 1_000_000
SHOWN_FROM = 1_000 * MB
"""From this size on the digests of what was sent and of what came back are printed."""


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "one round of 10 MB")
    options.number("rounds", 5, 1, "calls")
    options.add_argument("--size", type=_size, help="bytes each way, such as 4GiB (default 100MB)")
    given = options.read()
    given.size = given.size or (10 * MB if given.quick else 100 * MB)
    return run(_measure, given)


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    place = stack.enter_context(cloud(folder))
    deploy("blocks")
    found = _rounds(options, place["pid"])
    grown = " and ".join(f"{name} by {megabytes(size)}" for name, size in found["grown_bytes"].items())
    call = (found["call_s"], 3, 1.5)
    beside = ("two socket copies", found["copy_s"])
    return Report(
        title="Large values",
        text=f"{options.size / MB:,.0f} MB each way, median of {options.rounds}. {' '.join(grown)}",
        goals=[at_most("P21", "a large argument and result", *call, beside=beside, show=seconds)],
        figures={"size_bytes": options.size, **found},
    )


def _rounds(options: argparse.Namespace, pid: int) -> dict[str, Any]:
    sys.path.append(str(APPS))
    from blocks import Block

    from apothic import RemoteFunction

    echo = RemoteFunction.from_name("bench-bulk", "echo")
    echo.remote(Block(bytearray(2 * MB)))
    memory = _peaks(pid)
    data = bytearray(options.size)
    calls: list[float] = []
    copies: list[float] = []
    for number in range(options.rounds):
        data[:16] = os.urandom(8) + number.to_bytes(8, "big")
        began = time.perf_counter()
        back = echo.remote(Block(data), timeout_s=3600)
        calls.append(time.perf_counter() - began)
        if back.data[:16] != data[:16] or len(back.data) != len(data):
            raise Broken("other bytes came back")
        if options.size >= SHOWN_FROM:
            print(f"sent     {hashlib.sha256(data).hexdigest()}\nreceived {hashlib.sha256(back.data).hexdigest()}")
        del back
        copies.append(_copied(data) + _copied(data))
    grown = {name: peak - memory.get(name, 0) for name, peak in _peaks(pid).items()}
    call_s, copy_s = statistics.median(calls), statistics.median(copies)
    return {"call_s": call_s, "copy_s": copy_s, "grown_bytes": grown}


def _copied(data: bytearray) -> float:
    """Return the seconds that the bytes take through a pair of sockets into memory."""
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
    return seconds


def _peaks(pid: int) -> dict[str, int]:
    """Return the greatest memory so far of server and worker, in bytes."""
    found = roles(pid)
    return {name: resident(found[name][0], peak=True) for name in ("server", "worker") if name in found}


def _size(text: str) -> int:
    units = {"MB": MB, "GB": 1000 * MB, "MiB": 1024**2, "GiB": 1024**3}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return int(float(text.removesuffix(unit)) * units.get(unit, 1))


if __name__ == "__main__":
    sys.exit(main())
