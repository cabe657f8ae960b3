"""What dead runners left behind is removed, and nothing of those that live (G4.4)."""

import subprocess
from pathlib import Path

from apothic_server.testing.guarantees import guarantee
from apothic_worker.limits import Bounds, Limits, machine_hierarchies
from apothic_worker.tidying import Tidying


@guarantee("G4.4", "no_leaked_resources")
def test_groups_and_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path):
    limits = Limits(machine_hierarchies(), tag="test-tidy", record=tmp_path / "record")
    scratch = tmp_path / "scratch"
    for name in ("1", "door-1", "2", "door-2", "archive-abc"):
        (scratch / name / "inner").mkdir(parents=True)
    living = limits.group("r-living", Bounds(1.0, 64))
    base = living.folders["pids"].parent
    dead = base / "r-dead"
    dead.mkdir()
    process = subprocess.Popen(["sleep", "600"])
    (dead / "cgroup.procs").write_text(str(process.pid))
    tidying = Tidying(limits, scratch, lambda: {"2"})

    tidying.step()
    assert process.wait() == -9
    tidying.step()
    groups = {path.name for path in base.iterdir() if path.is_dir()}
    living.remove()
    limits.close()

    assert groups == {"r-living"}
    assert {path.name for path in scratch.iterdir()} == {"2", "door-2", "archive-abc"}


@guarantee("G4.4", "no_leaked_resources")
def test_a_group_that_could_not_be_removed_in_time_is_left_to_the_next_look(tmp_path: Path):
    limits = Limits(machine_hierarchies(), tag="test-late", record=tmp_path / "record")
    group = limits.group("r-late", Bounds(1.0, 64))
    process = subprocess.Popen(["sleep", "600"])
    group.add(process.pid)
    kept = limits.tidy()
    limits.release(group, tries=0)

    assert kept == []
    assert limits.tidy() == ["r-late"]
    assert process.wait() == -9
    assert limits.tidy() in ([], ["r-late"])
    limits.close()
    assert list(Path("/sys/fs/cgroup").rglob("apothic-test-late")) == []
