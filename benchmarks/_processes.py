"""Processes seen from outside: who is below whom, what they take of the processors and of the memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def below(pid: int) -> list[int]:
    """Return all processes below one, without it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, []))
    for one in found:
        found += children.get(one, [])
    return found


def children(pid: int) -> list[int]:
    """Return the processes that one has started and not yet waited for."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:
            continue
    return found


def roles(pid: int) -> dict[str, list[int]]:
    """Return the processes of a running cloud by role, the server first, given the server."""
    found: dict[str, list[int]] = {"server": [pid]}
    for one in below(pid):
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        role = "postgres" if "postgres" in command else "worker" if "apothic_worker" in command else "runner"
        found.setdefault(role, []).append(one)
    return found


def schedule(pids: Iterable[int]) -> tuple[int, int, int]:
    """Return nanoseconds on a processor, nanoseconds ready but waiting for one, and switches, of all their threads."""
    ran = waited = switches = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                values = [int(value) for value in task.read_text().split()]
            except OSError:
                continue
            ran, waited, switches = ran + values[0], waited + values[1], switches + values[2]
    return ran, waited, switches


def pss(pids: Iterable[int]) -> int:
    """Return bytes of memory; what several processes share counts for each by its share."""
    return sum(_memory(pid, "smaps_rollup", "Pss") for pid in pids)


def private(pids: Iterable[int]) -> int:
    """Return bytes of memory that no other process shares."""
    return sum(_memory(pid, "smaps_rollup", f"Private_{kind}") for pid in pids for kind in ("Clean", "Dirty"))


def resident(pid: int) -> int:
    """Return bytes of memory with everything shared."""
    return _memory(pid, "status", "VmRSS")


def anonymous(pid: int) -> int:
    """Return bytes of memory that is no file's."""
    return _memory(pid, "status", "RssAnon")


def _memory(pid: int, file: str, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
