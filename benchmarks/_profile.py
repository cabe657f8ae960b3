"""Where the time of one call goes: processor time by process, and the server's and the worker's by part of their code.

The first comes from the scheduler's own counters, the second from py-spy, which samples a process from outside, so
nothing in the product knows that it is watched.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from _contenders import Driver
from _environments import NotMeasured, environment
from _processes import roles, schedule

SAMPLED_S, RATE = 20, 500
SHARE_MIN = 0.5
LINES = 25


def profile(cloud: Driver, calls: int, folder: Path) -> dict[str, Any]:
    """Print the profile and return it."""
    split = _split(cloud, max(calls, 50))
    print("\n## Where the time of a call goes\n\nProcessor time for each call, one at a time:\n")
    print("| process | on a processor | ready, but waiting for one | switched in |\n|---|---|---|---|")
    for name, (ran, waited, switches) in split.items():
        print(f"| {name} | {ran:,.0f} µs | {waited:,.0f} µs | {switches:.1f} times |")
    samples = {
        name: _sampled(cloud, pids[0], split[name][0], folder)
        for name, pids in _processes(cloud).items()
        if name in ("server", "worker") and pids
    }
    return {"processes_us": split, "parts_us": samples}


def _processes(cloud: Driver) -> dict[str, list[int]]:
    """Return the processes of client and running cloud by role."""
    return {"client": [cloud.pid], **roles(cloud.ready["pid"])}


def _split(cloud: Driver, calls: int) -> dict[str, tuple[float, float, float]]:
    """Return microseconds on a processor, microseconds ready, and switches, for each call and role."""
    cloud.round("call", 50, 0)
    roles = _processes(cloud)
    before = {role: schedule(pids) for role, pids in roles.items()}
    cloud.round("call", calls, 0)
    spent: dict[str, tuple[float, float, float]] = {}
    for role, pids in roles.items():
        ran, waited, switches = (late - early for late, early in zip(schedule(pids), before[role], strict=True))
        spent[role] = (ran / calls / 1000, waited / calls / 1000, switches / calls)
    return spent


def _sampled(cloud: Driver, pid: int, call_us: float, folder: Path) -> dict[str, float]:
    """Sample a process while it is called and print its parts; empty when py-spy does not work here."""
    name = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    title = "worker" if "apothic_worker" in name else "server"
    raw = folder / f"{title}.raw"
    try:
        spy = str(environment("tools") / "bin" / "py-spy")
        command = [
            spy,
            "record",
            "--gil",
            "--nonblocking",
            "-r",
            str(RATE),
            "-d",
            str(SAMPLED_S),
            "-f",
            "raw",
            "-o",
            str(raw),
            "-p",
            str(pid),
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                cloud.round("call", 50, 0)
            if process.returncode:
                raise NotMeasured((process.stderr.read() if process.stderr else "").strip()[-200:])
    except NotMeasured as reason:
        print(f"\nThe {title} was not sampled: {reason}")
        return {}
    stacks = [
        (line.rpartition(" ")[0].split(";"), int(line.rpartition(" ")[2])) for line in raw.read_text().splitlines()
    ]
    return _print_parts(title, stacks, call_us)


def _print_parts(title: str, stacks: list[tuple[list[str], int]], call_us: float) -> dict[str, float]:
    total = sum(count for _, count in stacks) or 1
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for frames, count in stacks:
        own[_part(frames[-1])] += count
        for frame in {_function(frame) for frame in frames}:
            below[frame] += count
    print(f"\n### {title}: {call_us:,.0f} µs a call, {total:,} samples while Python ran\n")
    print("| part of the code, itself | share | about |\n|---|---|---|")
    parts = {name: count / total for name, count in own.most_common() if count * 100 / total >= SHARE_MIN}
    for name, share in parts.items():
        print(f"| `{name}` | {share:.1%} | {share * call_us:,.0f} µs |")
    print("\n| function, with what it calls | share | about |\n|---|---|---|")
    ours = [(name, count) for name, count in below.most_common() if "apothic" in name or "uvicorn" in name]
    for name, count in ours[:LINES]:
        print(f"| `{name}` | {count / total:.1%} | {count / total * call_us:,.0f} µs |")
    return {name: share * call_us for name, share in parts.items()}


def _part(frame: str) -> str:
    """Return the module of our code, or the package of another's."""
    path = _path(frame)
    if path.startswith(("apothic", "apothic_server", "apothic_worker")):
        return path
    return path.split("/")[0]


def _function(frame: str) -> str:
    return f"{frame.split(' (')[0]} ({_path(frame)})"


def _path(frame: str) -> str:
    found = re.search(r"\((.*?)(?::\d+)?\)$", frame)
    path = found[1] if found else frame
    for mark in ("site-packages/", "/src/"):
        path = path.rpartition(mark)[2]
    return re.sub(r"^.*lib/python3\.\d+/", "python: ", path)
