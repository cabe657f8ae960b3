"""How fast short lines pass from a generator to its reader, and what the server's memory does meanwhile (G5.4).

A cloud is started in a temporary folder; one program reads all lines with `remote_gen`, at full speed or so many times
slower than they can be made, and checks that each comes once and in order.

Usage: generator.py [--lines N] [--per-second N]

Exits with 0 also when a goal is missed, and with 1 when a line is lost, repeated or out of place.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _machine import machine_line, moment

LINES = 2_000_000
LOOKS = 1_000
"""The memory is looked at, and the speed is kept, every so many lines."""

APP = Path(__file__).parent / "_noop" / "lines.py"
PROGRAM = Path(sys.executable).with_name("apothic")


def main() -> None:
    """Start a cloud, read, print what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines")
    parser.add_argument("--per-second", type=int, default=0, help="lines read a second at most; 0 is full speed")
    given = parser.parse_args()
    start = moment()
    with tempfile.TemporaryDirectory() as folder:
        process, pid = _start(Path(folder))
        try:
            subprocess.run([sys.executable, APP], check=True)
            seconds, before, peak = _read(given.lines, given.per_second, pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    print(machine_line(start, moment()))
    print(f"{given.lines:,} lines in {seconds:.1f} s: {given.lines / seconds:,.0f} lines/s")
    print(f"server memory: {before // 1024} MiB before, {peak // 1024} MiB at most")


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    endpoint = folder / "endpoint.json"
    options = ["--data", str(folder / "data"), "--port", "0", "--endpoint", str(endpoint)]
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen([PROGRAM, "up", *options], stderr=log, cwd=folder, start_new_session=True)
    while not endpoint.exists():
        if process.poll() is not None:
            sys.exit(f"broken: apothic up ended\n{(folder / 'up.log').read_text()[-2000:]}")
        time.sleep(0.01)
    place = json.loads(endpoint.read_text())
    os.environ.update(APOTHIC_BASE_URL=place["url"], APOTHIC_API_KEY=place["key"])
    return process, place["pid"]


def _read(count: int, per_second: int, pid: int) -> tuple[float, int, int]:
    """Return the seconds that the reading took, and the server's resident KiB before and at most."""
    from apothic import RemoteFunction

    lines = RemoteFunction.from_name("bench-generator", "lines")
    list(lines.remote_gen(1))
    before = peak = _resident_kb(pid)
    number, began = 0, time.monotonic()
    for line in lines.remote_gen(count, timeout_s=86_400):
        if line != f"line {number:08d}":
            sys.exit(f"broken: {line!r} came where line {number} belongs")
        number += 1
        if number % LOOKS == 0:
            peak = max(peak, _resident_kb(pid))
            ahead_s = number / per_second - (time.monotonic() - began) if per_second else 0.0
            time.sleep(max(0.0, ahead_s))
    if number != count:
        sys.exit(f"broken: {number} of {count} lines came")
    return time.monotonic() - began, before, peak


def _resident_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
