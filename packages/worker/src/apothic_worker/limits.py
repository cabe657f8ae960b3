"""Limits of CPU, memory and processes by cgroups, version 1 and 2.

What a machine offers is found by doing: a group is made and a limit is written. What cannot be enforced is reported
with the reason and never claimed (G19.6). All groups of a worker lie below one folder per hierarchy,
`apothic-<tag>`, inside the cgroup the worker itself is in, and their paths are written down in the data folder
before they are made, so that a sweep after a crash finds every one of them.

Version 1 has one hierarchy per controller, so one group is up to three folders. Version 2 has one folder; a group
there may delegate controllers only when it holds no processes itself, so a worker that is alone in its cgroup moves
into a leaf first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

CONTROLLERS = ("cpu", "memory", "pids")
PIDS_MAX = 1024
"""Processes and threads of one runner."""

CPU_PERIOD_US = 100_000
SHARES = {1: ("cpu.shares", "2", "1024"), 2: ("cpu.weight", "1", "100")}
"""By version: the file of a group's share, its least value and its usual one."""

REMOVE_WAIT_S = 2.0
RELEASE_TRIES = 100
RELEASE_PAUSE_S = 0.02
_PREFIX = "apothic-"


@dataclass(frozen=True)
class Bounds:
    """What one group may use; None leaves a resource unlimited."""

    cpus: float | None
    memory_mb: int | None
    pids: int | None = PIDS_MAX


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: the folder that stands for the worker's own cgroup in it."""

    version: int
    folder: Path
    controllers: tuple[str, ...]


@dataclass
class Group:
    """One cgroup, made of a folder per hierarchy. Empty `folders` when nothing can be enforced here."""

    folders: dict[str, Path]
    versions: dict[str, int]
    _pids: int = field(default=-1, repr=False)

    @property
    def entries(self) -> list[Path]:
        """The files to which a process writes its id to enter the group."""
        return [folder / "cgroup.procs" for folder in dict.fromkeys(self.folders.values())]

    def add(self, pid: int) -> None:
        """Put a process into the group; what it starts later follows. A process that is gone already is fine."""
        for entry in self.entries:
            with contextlib.suppress(ProcessLookupError):
                entry.write_text(str(pid))

    def members(self) -> set[int]:
        """Ids of the processes in the group now."""
        found: set[int] = set()
        for entry in self.entries:
            with contextlib.suppress(FileNotFoundError):
                found.update(int(line) for line in entry.read_text().split())
        return found

    def tasks(self) -> int | None:
        """Processes and threads in the group now, or None when that is not counted. Costs a few microseconds."""
        if "pids" not in self.folders:
            return None
        if self._pids < 0:
            self._pids = os.open(self.folders["pids"] / "pids.current", os.O_RDONLY | os.O_CLOEXEC)
        return int(os.pread(self._pids, 32, 0))

    def memory_kills(self) -> int:
        """How often the kernel killed a process of the group for exceeding its memory."""
        folder = self.folders.get("memory")
        if folder is None:
            return 0
        name = "memory.events" if self.versions["memory"] == 2 else "memory.oom_control"
        with contextlib.suppress(OSError):
            return sum(
                int(line.split()[1])
                for line in (folder / name).read_text().splitlines()
                if line.startswith("oom_kill ")
            )
        return 0

    def set(self, bounds: Bounds) -> None:
        """Write the bounds, larger or smaller than before."""
        for controller in self.folders:
            _WRITERS[controller](self.folders[controller], self.versions[controller], bounds)

    def yield_processors(self, *, to_others: bool) -> None:
        """Get the processors that other groups leave free, or an equal share of them again."""
        folder = self.folders.get("cpu")
        if folder is not None:
            name, low, usual = SHARES[self.versions["cpu"]]
            (folder / name).write_text(low if to_others else usual)

    def kill(self) -> bool:
        """Send KILL to every member; whether there was one."""
        members = self.members()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(members)

    def remove(self) -> bool:
        """Try to remove the group; false while a process is still in it."""
        if self._pids >= 0:
            os.close(self._pids)
            self._pids = -1
        gone = [_remove_folder(folder) for folder in dict.fromkeys(self.folders.values())]
        return all(gone)


class Limits:
    """Makes groups below the worker's own cgroup.

    Args:
        hierarchies: Where groups can be made; see `find_hierarchies`.
        tag: Part of the folders' name, unique per worker process.
        record: File that lists the folders made here.
    """

    def __init__(self, hierarchies: list[Hierarchy], *, tag: str, record: Path) -> None:
        self.not_enforced: dict[str, str] = {}
        self._bases: dict[str, Path] = {}
        self._versions: dict[str, int] = {}
        self._record = record
        self._owned: set[str] = set()
        for controller in CONTROLLERS:
            self._probe(controller, hierarchies, f"{_PREFIX}{tag}")

    @property
    def enforced(self) -> list[str]:
        """The controllers that really limit, by a probe."""
        return list(self._bases)

    def group(self, name: str, bounds: Bounds) -> Group:
        """Make a group with these bounds; `name` is unique among live groups."""
        if self._bases:
            self._owned.add(name)
        group = Group({key: base / name for key, base in self._bases.items()}, dict(self._versions))
        for folder in group.folders.values():
            folder.mkdir(exist_ok=True)
        group.set(bounds)
        return group

    def cap(self, cpus: float) -> None:
        """Let all groups together use no more processors than are offered."""
        if "cpu" in self._bases:
            _write_cpu(self._bases["cpu"], self._versions["cpu"], Bounds(max(1.0, cpus), None))

    def release(self, group: Group, tries: int = RELEASE_TRIES) -> None:
        """Kill what is left in a group and remove it, trying again for two seconds; `tidy` removes the rest."""
        if not group.remove() and tries:
            group.kill()
            asyncio.get_running_loop().call_later(RELEASE_PAUSE_S, self.release, group, tries - 1)
        else:
            self._owned -= {folder.name for folder in group.folders.values()}

    def tidy(self) -> list[str]:
        """Kill what runs in groups that nobody owns any more, and remove them where that is possible at once.

        Returns:
            Their names, in no order.
        """
        found: set[str] = set()
        for base in dict.fromkeys(self._bases.values()):
            for folder in [entry for entry in base.iterdir() if entry.is_dir() and entry.name not in self._owned]:
                found.add(folder.name)
                _remove_once(folder)
        return list(found)

    def close(self) -> None:
        """Remove everything made here; call when no process is left in it."""
        for base in dict.fromkeys(self._bases.values()):
            remove_tree(base)
        self._bases.clear()
        self._record.unlink(missing_ok=True)

    def _probe(self, controller: str, hierarchies: list[Hierarchy], name: str) -> None:
        hierarchy = next((found for found in hierarchies if controller in found.controllers), None)
        if hierarchy is None:
            self.not_enforced[controller] = f"no cgroup hierarchy with the {controller} controller is mounted"
            return
        base = hierarchy.folder / name
        try:
            with self._record.open("a") as record:
                record.write(f"{base}\n")
            if hierarchy.version == 2:
                delegate(hierarchy.folder, controller)
            base.mkdir(exist_ok=True)
            if hierarchy.version == 2:
                (base / "cgroup.subtree_control").write_text(f"+{controller}")
            probe = Group({controller: base / "probe"}, {controller: hierarchy.version})
            probe.folders[controller].mkdir()
            probe.set(Bounds(1.0, 64, 64))
            probe.remove()
        except OSError as error:
            self.not_enforced[controller] = f"the cgroup {hierarchy.folder} cannot be used: {error.strerror}"
            self._undo(base)
            return
        self._bases[controller] = base
        self._versions[controller] = hierarchy.version

    def _undo(self, base: Path) -> None:
        """Remove what a probe that failed has made: a group in which nothing ever runs proves nothing to a sweep."""
        kept = list(dict.fromkeys(self._bases.values()))
        remove_tree(base / "probe" if base in kept else base)
        if not base.exists():
            with contextlib.suppress(OSError):
                self._record.write_text("".join(f"{one}\n" for one in kept))


def find_hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """Return the cgroup hierarchies with the worker's own folder in each.

    Args:
        mountinfo: Text of `/proc/self/mountinfo`.
        own: Text of `/proc/self/cgroup`.
    """
    places = {controllers: path for _, controllers, path in (line.split(":", 2) for line in own.splitlines())}
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        root, mount = (_unescape(text) for text in fields.split()[3:5])
        kind, _, options = [*tail.split(), "", "", ""][:3]
        if kind == "cgroup2" and "" in places:
            folder = _inside(mount, root, places[""])
            found.append(Hierarchy(2, folder, _controllers_v2(folder)))
        elif kind == "cgroup":
            found.extend(_hierarchy_v1(mount, root, set(options.split(",")), places))
    return found


def machine_hierarchies() -> list[Hierarchy]:
    """Return the hierarchies of this process; empty where there are no cgroups."""
    try:
        return find_hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError:
        return []


def delegate(folder: Path, controller: str) -> None:
    """Let groups below a version 2 folder use a controller, moving the worker into a leaf when it is alone there.

    Raises:
        OSError: The kernel refuses, most often because other processes live in the folder.
    """
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return
    try:
        control.write_text(f"+{controller}")
    except OSError:
        if (folder / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            raise
        leaf = folder / "apothic-worker"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text(f"+{controller}")


def sweep(record: Path) -> bool:
    """Remove the groups that a worker of the same data folder left behind, with every process in them.

    Returns:
        Whether all of them were still there, and none is left: then nothing of that worker's user code lives.
    """
    if not record.exists():
        return False
    named = [Path(line) for line in record.read_text().splitlines()]
    bases = [base for base in named if base.name.startswith(_PREFIX)]
    were_there = bool(bases) and all(base.is_dir() for base in bases)
    for base in bases:
        remove_tree(base)
    record.unlink()
    return were_there and not any(base.exists() for base in bases)


def remove_tree(base: Path) -> None:
    """Kill what runs in a folder of groups and remove it; gives up after two seconds."""
    deadline = time.monotonic() + REMOVE_WAIT_S
    while base.is_dir():
        _remove_once(base)
        if time.monotonic() > deadline:
            return
        if base.is_dir():
            time.sleep(0.01)


def _remove_once(base: Path) -> None:
    for path, _, _ in os.walk(base, topdown=False):
        Group({"pids": Path(path)}, {}).kill()
        _remove_folder(Path(path))


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _hierarchy_v1(mount: str, root: str, options: set[str], places: dict[str, str]) -> list[Hierarchy]:
    controllers = tuple(controller for controller in CONTROLLERS if controller in options)
    place = next((path for names, path in places.items() if set(names.split(",")) & set(controllers)), None)
    if not controllers or place is None:
        return []
    return [Hierarchy(1, _inside(mount, root, place), controllers)]


def _controllers_v2(folder: Path) -> tuple[str, ...]:
    try:
        there = (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return ()
    return tuple(controller for controller in CONTROLLERS if controller in there)


def _inside(mount: str, root: str, place: str) -> Path:
    """Return the folder of a cgroup below a mount that may show only a part of the hierarchy."""
    relative = os.path.relpath(place, root)
    return Path(mount) if relative.startswith("..") else Path(mount, relative)


def _unescape(text: str) -> str:
    return text.replace("\\040", " ")


def _write_cpu(folder: Path, version: int, bounds: Bounds) -> None:
    quota = -1 if bounds.cpus is None else max(1000, int(bounds.cpus * CPU_PERIOD_US))
    if version == 2:
        (folder / "cpu.max").write_text(f"{'max' if quota < 0 else quota} {CPU_PERIOD_US}")
        return
    (folder / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
    (folder / "cpu.cfs_quota_us").write_text(str(quota))


def _write_memory(folder: Path, version: int, bounds: Bounds) -> None:
    limit = -1 if bounds.memory_mb is None else bounds.memory_mb * 1024 * 1024
    if version == 2:
        (folder / "memory.max").write_text("max" if limit < 0 else str(limit))
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("max" if limit < 0 else "0")
        return
    swap = folder / "memory.memsw.limit_in_bytes"
    order = (folder / "memory.limit_in_bytes", swap) if swap.exists() else (folder / "memory.limit_in_bytes",)
    for path in order:
        try:
            path.write_text(str(limit))
        except OSError:
            swap.write_text(str(limit))
            path.write_text(str(limit))


def _write_pids(folder: Path, version: int, bounds: Bounds) -> None:
    del version
    (folder / "pids.max").write_text("max" if bounds.pids is None else str(bounds.pids))


_WRITERS = {"cpu": _write_cpu, "memory": _write_memory, "pids": _write_pids}
