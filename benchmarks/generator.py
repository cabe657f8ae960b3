"""How fast short lines pass from a generator to its reader, and what the server's memory does meanwhile (G5.4).

One program reads all lines with `remote_gen`, at full speed or so many times slower than they can be made, and checks
that each comes once and in order.

Usage: generator.py [--quick] [--json FILE] [--lines N] [--per-second N]

Exits with 0 also when a goal is missed, and with 1 when a line is lost, repeated or out of place.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from _contenders import Broken
from _measuring import Options, Report, run
from _processes import resident
from _verdict import at_most, megabytes
from clouds import cloud, deploy

LOOKS = 1_000
"""The memory is looked at, and the speed is kept, every so many lines."""

GROWTH_MAX = 16 << 20
"""As many bytes of a live stream are kept."""


def main() -> int:
    """Measure, print, and return the exit code."""
    options = Options(__doc__, "few lines")
    options.number("lines", 2_000_000, 20_000, "lines")
    options.number("per-second", 0, 0, "lines read a second at most, 0 for full speed")
    return run(_measure, options.read())


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Report:
    place = stack.enter_context(cloud(folder))
    deploy("lines")
    seconds, before, peak = _read(options.lines, options.per_second, place["pid"])
    rate = options.lines / seconds
    return Report(
        title="A generator",
        text=f"{options.lines:,} lines in {seconds:.1f} s: {rate:,.0f} lines/s. Memory of the server: "
        f"{megabytes(before)} before, {megabytes(peak)} at most.",
        goals=[at_most("G5.4", "growth of the server while lines pass", peak - before, GROWTH_MAX, show=megabytes)],
        figures={"lines": options.lines, "lines_per_s": rate, "before_bytes": before, "peak_bytes": peak},
    )


def _read(count: int, per_second: int, pid: int) -> tuple[float, int, int]:
    """Return the seconds that the reading took, and the server's resident bytes before and at most."""
    from apothic import RemoteFunction

    lines = RemoteFunction.from_name("bench-generator", "lines")
    list(lines.remote_gen(1))
    before = peak = resident(pid)
    number, began = 0, time.monotonic()
    for line in lines.remote_gen(count, timeout_s=86_400):
        if line != f"line {number:08d}":
            raise Broken(f"{line!r} came where line {number} belongs")
        number += 1
        if number % LOOKS == 0:
            peak = max(peak, resident(pid))
            ahead_s = number / per_second - (time.monotonic() - began) if per_second else 0.0
            time.sleep(max(0.0, ahead_s))
    if number != count:
        raise Broken(f"{number} of {count} lines came")
    return time.monotonic() - began, before, peak


if __name__ == "__main__":
    sys.exit(main())
