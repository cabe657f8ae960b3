"""A large argument and a large result against one copy of each through a socket, in one run and one table (P21).

Each call carries bytes that no call carried before, so everything is moved and hashed.

Usage: bulk.py [--quick] [--json FILE] [--rounds N] [--size BYTES]

Exits with 0 also when a goal is missed, and with 1 when the run is broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _contenders import Broken
from _machine import machine_line, moment
from _measuring import run
from _verdict import Goal, as_json, goal_table

sys.path[:0] = [str(Path(__file__).with_name("_drivers")), str(Path(__file__).with_name("_noop"))]
from children import child, wait_until  # noqa: E402

APP = Path(__file__).with_name("_noop") / "blocks.py"
MB = 1_000_000
ROUNDS, SIZE = 5, 100 * MB
COPIES_MAX = 3.0
SHOWN_FROM = 1_000 * MB
"""From this size on the digests of what was sent and of what came back are printed."""


def main() -> int:
    """Measure, print, and return the exit code."""
    return run(_measure, _options())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    for name in [name for name in os.environ if name.startswith("APOTHIC_")]:
        del os.environ[name]
    endpoint = folder / "endpoint.json"
    program = str(Path(sys.executable).with_name("apothic"))
    command = [program, "up", "--data", str(folder / "data"), "--port", "0", "--endpoint", str(endpoint)]
    process = stack.enter_context(child(command, cwd=folder))
    wait_until(endpoint.exists, "apothic up", process)
    place = json.loads(endpoint.read_text())
    os.environ.update(APOTHIC_BASE_URL=place["url"], APOTHIC_API_KEY=place["key"])
    subprocess.run([sys.executable, str(APP)], check=True, stdout=sys.stderr, cwd=APP.parent)
    before = moment()
    result = _rounds(options, place["pid"])
    print(machine_line(before, moment()))
    goal = Goal(
        "P21: argument and result against one socket copy of each",
        f"≤ {COPIES_MAX:g} times",
        f"{result['copies']:.1f} times",
        result["copies"] <= COPIES_MAX,
    )
    print(goal_table([goal]))
    return {**result, "goals": [as_json(goal)]}


def _rounds(options: argparse.Namespace, pid: int) -> dict[str, Any]:
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
    print(f"{options.size / MB:,.0f} MB each way, median of {options.rounds}:")
    print(f"  call {call_s * 1000:,.0f} ms, two socket copies {copy_s * 1000:,.0f} ms")
    for name, size in grown.items():
        print(f"  memory of the {name} grew by {size / MB:.1f} MB")
    return {"call_s": call_s, "copy_s": copy_s, "copies": call_s / copy_s, "grown_bytes": grown}


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
    found = {"server": _peak(pid)}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            is_worker = b"apothic_worker.cli" in command[:5] and _is_below(int(folder.name), pid)
        except OSError:
            continue
        if is_worker:
            found["worker"] = _peak(int(folder.name))
    return found


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        pid = int(_status(pid)["PPid"])
    return pid == ancestor


def _peak(pid: int) -> int:
    return int(_status(pid)["VmHWM"].split()[0]) * 1024


def _status(pid: int) -> dict[str, str]:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _size(text: str) -> int:
    units = {"MB": MB, "GB": 1000 * MB, "MiB": 1024**2, "GiB": 1024**3}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return int(float(text.removesuffix(unit)) * units.get(unit, 1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of 10 MB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--rounds", type=int, help=f"calls (default: {ROUNDS})")
    parser.add_argument("--size", type=_size, help="bytes each way, such as 4GiB (default: 100MB)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.size = options.size or (10 * MB if options.quick else SIZE)
    return options


if __name__ == "__main__":
    sys.exit(main())
