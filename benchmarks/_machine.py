"""The machine and the moment of a run, in one line."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
