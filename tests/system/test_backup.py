"""Backup of a running cloud, restore into an empty folder: what was told keeps its meaning, and damage is refused."""

import json
import os
import shutil
import signal

import pytest

from apothic_server.store.backup import JUMP_MIN
from apothic_server.testing.guarantees import guarantee

from .clouds import until
from .people import says_no_traceback
from .processes import descendants, name_of


@pytest.fixture
def deployed(own_cloud, stranger):
    """Start a cloud that has the app `jobs`."""
    cloud = own_cloud()
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    return cloud


@pytest.fixture
def copied(deployed, stranger):
    """Take a backup of a small cloud and end the cloud; returns the folder."""
    deployed.outcome(deployed.spawn("jobs", "echo", "x" * 100_000))
    folder = stranger.home / "backup"
    stranger.apothic("backup", folder, "--data", deployed.data).ok()
    deployed.stop()
    return folder


def events(cloud, job_id, after):
    answer = cloud.request("GET", f"/v1/jobs/{job_id}/events?after={after}", headers={"Accept": "application/json"})
    assert answer.status == 200, answer.body
    return answer.json["events"]


def read(cloud, job_id):
    """Return kind by index of the events of a job that are kept."""
    found = events(cloud, job_id, -1)
    return {event["index"]: event["event"] for event in found}


@guarantee("G14.6", "backup_restore_cycle")
@guarantee("G5.9", "restore_never_goes_back")
@guarantee("G5.5", "reset_not_silence")
def test_a_running_cloud_is_copied_and_its_copy_goes_on_without_giving_an_index_a_second_meaning(
    deployed, own_cloud, stranger
):
    ended = deployed.spawn("jobs", "echo", "before")
    large = deployed.spawn("jobs", "echo", "x" * 100_000)
    outcomes = [deployed.outcome(job_id) for job_id in (ended, large)]
    running = deployed.spawn("jobs", "gate")
    deployed.wait_line(running, "waiting")
    told = read(deployed, ended)
    folder, target = stranger.home / "backup", stranger.home / "restored"
    made = stranger.apothic("backup", folder, "--data", deployed.data, "--json")
    _open_gate(deployed)
    later = deployed.outcome(running)
    told_later = read(deployed, running)
    deployed.kill_everything()

    restored = stranger.apothic("restore", folder, "--data", target, "--json")
    again = own_cloud(data=target)
    reset = events(again, ended, 1)[0]
    beyond = events(again, running, max(told_later))[0]
    until(lambda: again.job(running)["attempt"] == 2 and again.lines(running)[1:] == ["waiting"], "it runs again")
    _open_gate(again)
    outcome = again.outcome(running)
    anew, anew_later = read(again, ended), read(again, running)

    assert (made.status, restored.status) == (0, 0), (made, restored)
    assert made.json == {
        "folder": str(folder),
        "files": len(json.loads((folder / "manifest.json").read_text())["files"]),
    }
    assert restored.json == {"folder": str(folder), "data": str(target)}
    assert again.key == deployed.key
    assert [again.outcome(job_id) for job_id in (ended, large)] == outcomes
    assert outcome["result"] == later["result"] == "opened"
    assert list(anew.values()) == list(told.values())
    assert min(min(anew), min(anew_later)) >= JUMP_MIN
    assert (reset["event"], beyond["event"]) == ("job.reset", "job.reset")
    assert reset["data"]["oldest_index"] == min(anew)
    assert again.outcome(again.spawn("jobs", "echo", "after"))["result"] == "after"


@guarantee("G14.6", "bitflip_detected")
@pytest.mark.parametrize("kind", ["tables/jobs", "blobs", "secrets/pepper", "manifest.json"])
def test_one_wrong_bit_in_a_backup_is_found_and_nothing_is_restored(copied, stranger, kind):
    path = copied / kind
    found = path if path.is_file() else max(path.rglob("*"), key=lambda each: each.is_file() and each.stat().st_size)
    content = bytearray(found.read_bytes())
    content[len(content) // 2] ^= 0x80
    found.write_bytes(content)
    target = stranger.home / "restored"
    ran = stranger.apothic("restore", copied, "--data", target)

    assert ran.status == 1
    assert "[backup_damaged]" in ran.err
    assert says_no_traceback(ran)
    assert not target.exists()


@guarantee("G14.6", "backup_restore_cycle")
def test_what_cannot_be_restored_says_why_and_leaves_the_folder_alone(copied, deployed, stranger):
    target = stranger.home / "taken"
    target.mkdir()
    (target / "letter").write_text("mine")
    full = stranger.apothic("restore", copied, "--data", target)
    second = stranger.apothic("backup", copied, "--data", deployed.data)
    none = stranger.apothic("backup", stranger.home / "other", "--data", stranger.home / "nothing")
    inside = stranger.apothic("backup", deployed.data / "backup", "--data", deployed.data)
    within = stranger.apothic("restore", copied, "--data", copied / "inner")
    nowhere = stranger.apothic("backup", "/proc/backup", "--data", deployed.data)
    unnamed = stranger.apothic("backup", "", "--data", deployed.data)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["migrations"] += ["f" * 64]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    newer = stranger.apothic("restore", copied, "--data", stranger.home / "restored")
    shutil.rmtree(copied / "tables")
    torn = stranger.apothic("restore", copied, "--data", stranger.home / "restored")

    told = [ran.err.rpartition("[")[2].strip(" ]\n") for ran in (full, second, none, newer, torn)]
    assert told == ["restore_not_empty", "backup_exists", "backup_no_cloud", "store_newer", "backup_damaged"]
    assert [ran.err.rpartition("[")[2].strip(" ]\n") for ran in (inside, within)] == ["backup_not_apart"] * 2
    assert "/proc/backup cannot be written" in nowhere.err
    assert "[backup_unwritable]" in nowhere.err
    assert (unnamed.status, "names no folder" in unnamed.err) == (2, True)
    assert not (deployed.data / "backup").exists()
    assert all(says_no_traceback(ran) for ran in (full, second, none, inside, within, nowhere, unnamed, newer, torn))
    assert [path.name for path in target.iterdir()] == ["letter"]
    assert not (stranger.home / "restored").exists()


@guarantee("G14.6", "backup_restore_cycle")
def test_a_stopped_cloud_is_copied_too(copied, deployed, own_cloud, stranger):
    folder, target = stranger.home / "second", stranger.home / "restored"
    stranger.apothic("backup", folder, "--data", deployed.data).ok()
    stranger.apothic("restore", folder, "--data", target).ok()
    again = own_cloud(data=target)

    assert again.outcome(again.spawn("jobs", "echo", "after"))["result"] == "after"


def _open_gate(cloud):
    os.kill(next(pid for pid in descendants(cloud.pid) if name_of(pid) == "gate"), signal.SIGUSR1)
