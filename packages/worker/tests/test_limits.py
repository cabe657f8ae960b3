"""Cgroups: found, honest about, and removed."""

import subprocess
import sys
from pathlib import Path

from apothic_worker.limits import Bounds, Hierarchy, Limits, find_hierarchies, machine_hierarchies, sweep

V1_MOUNTS = """\
31 23 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 23 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
33 23 0:28 /docker/abc /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 23 0:29 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 23 0:30 / /data rw - ext4 /dev/vda rw
"""
V1_OWN = "5:cpu,cpuacct:/a\n4:memory:/b\n3:pids:/docker/abc/d\n2:freezer:/\n"


def test_version_1_hierarchies_are_found_with_the_own_folder_in_each():
    assert find_hierarchies(V1_MOUNTS, V1_OWN) == [
        Hierarchy(1, Path("/sys/fs/cgroup/cpu,cpuacct/a"), ("cpu",)),
        Hierarchy(1, Path("/sys/fs/cgroup/memory/b"), ("memory",)),
        Hierarchy(1, Path("/sys/fs/cgroup/pids/d"), ("pids",)),
    ]


def test_the_version_2_hierarchy_offers_the_controllers_of_the_own_folder(tmp_path):
    own = tmp_path / "user.slice"
    own.mkdir()
    (own / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    mounts = f"31 23 0:26 / {tmp_path} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"

    assert find_hierarchies(mounts, "0::/user.slice\n") == [Hierarchy(2, own, ("cpu", "memory", "pids"))]


def test_a_machine_without_cgroups_enforces_nothing_and_says_so(tmp_path):
    limits = Limits([], tag="t", record=tmp_path / "record")
    group = limits.group("g", Bounds(1.0, 64))

    assert limits.enforced == []
    assert set(limits.not_enforced) == {"cpu", "memory", "pids"}
    assert (group.members(), group.tasks(), group.memory_kills(), group.remove()) == (set(), None, 0, True)


def test_a_folder_that_cannot_be_written_is_reported_with_the_reason():
    code = (
        "import os, pathlib, tempfile; from apothic_worker.limits import *\n"
        "folder = pathlib.Path(tempfile.mkdtemp()); os.chown(folder, 65534, 65534)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "limits = Limits(machine_hierarchies(), tag='t', record=folder / 'record')\n"
        "print(limits.enforced, limits.not_enforced); limits.close(); folder.rmdir()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("[] ")
    assert "Permission denied" in done.stdout or "Read-only" in done.stdout


def test_a_group_holds_processes_and_is_removed_when_they_are_gone(tmp_path):
    limits = Limits(machine_hierarchies(), tag="test-group", record=tmp_path / "record")
    group = limits.group("g", Bounds(0.5, 64, 10))
    process = subprocess.Popen(["sleep", "600"])
    group.add(process.pid)
    before = (group.members(), group.tasks(), group.remove())
    group.kill()
    process.wait()
    after = (group.members(), group.remove())
    limits.close()

    assert limits.not_enforced == {}
    assert before == ({process.pid}, 1, False)
    assert after == (set(), True)
    assert list(Path("/sys/fs/cgroup").rglob("apothic-test-group")) == []


def test_a_sweep_kills_and_removes_what_a_crash_left(tmp_path):
    record = tmp_path / "record"
    limits = Limits(machine_hierarchies(), tag="test-sweep", record=record)
    group = limits.group("g", Bounds(None, None))
    process = subprocess.Popen(["sleep", "600"])
    group.add(process.pid)
    with record.open("a") as out:
        out.write(f"{tmp_path}/not-ours\n")
    (tmp_path / "not-ours").mkdir()
    knows = sweep(record)

    assert process.wait() == -9
    assert list(Path("/sys/fs/cgroup").rglob("apothic-test-sweep")) == []
    assert (tmp_path / "not-ours").is_dir()
    assert not record.exists()
    assert knows
    assert not sweep(record)


def test_a_probe_that_failed_leaves_no_group_that_a_sweep_could_take_for_one_of_user_code(tmp_path):
    record, folder = tmp_path / "record", tmp_path / "hierarchy"
    (folder / "apothic-t" / "probe").mkdir(parents=True)  # the probe cannot be made, the group can
    limits = Limits([Hierarchy(1, folder, ("memory",))], tag="t", record=record)

    assert limits.enforced == []
    assert "cannot be used" in limits.not_enforced["memory"]
    assert list(folder.iterdir()) == []
    assert not sweep(record)
