"""The machine and the moment of a run, in one line."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOOK_S = 2.0
OTHERS_MAX, STOLEN_MAX = 0.15, 0.1
"""Shares of the processors that other programs and other guests of the host may take in a run that counts."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Counters of all processors, in ticks, and the load."""

    load: float
    stolen: int
    idle: int
    total: int


def moment() -> Moment:
    """Read the counters now."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return Moment(os.getloadavg()[0], ticks[7], ticks[3] + ticks[4], sum(ticks))


def busy_reasons(when: str) -> list[str]:
    """Look at the machine before or after a run, while nothing of it runs; return why the run would not count."""
    before = moment()
    time.sleep(LOOK_S)
    after = moment()
    total = max(after.total - before.total, 1)
    others = 1 - (after.idle - before.idle + after.stolen - before.stolen) / total
    if others <= OTHERS_MAX:
        return []
    return [f"other programs took {others:.0%} of the processors {when} the run, {OTHERS_MAX:.0%} are allowed"]


def stolen_reasons(before: Moment, after: Moment) -> list[str]:
    """Return why a run between two moments does not count: other guests of the host had too much."""
    stolen = (after.stolen - before.stolen) / max(after.total - before.total, 1)
    if stolen <= STOLEN_MAX:
        return []
    return [f"other guests of the host took {stolen:.0%} of the processors, {STOLEN_MAX:.0%} are allowed"]


def machine_line(before: Moment, after: Moment) -> str:
    """Say what was measured where, and how busy it was meanwhile. Stolen: wanted by us, given to other guests."""
    total = max(after.total - before.total, 1)
    stolen, idle = ((getattr(after, name) - getattr(before, name)) * 100 / total for name in ("stolen", "idle"))
    return (
        f"{os.cpu_count()} cores of {_model()}, Python {platform.python_version()}, Linux {platform.release()}, "
        f"commit {_commit()}, load {before.load:.1f} before and {after.load:.1f} after, "
        f"processors idle {idle:.0f} %, stolen {stolen:.0f} %"
    )


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return f"{name} with changes" if _git("status", "--porcelain", "packages") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
