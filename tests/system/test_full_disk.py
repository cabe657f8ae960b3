"""A cloud on a small disk of its own that other files fill up, down to the last byte."""

import contextlib
import json
import os
import signal
import subprocess

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import needs

from .clouds import server_log, until
from .processes import descendants, name_of

MIB = 1024 * 1024
DISK_MIB = 400
FLOOR_MIB = 64
LINES_MAX = 200
"""Most lines that a minute with a full disk may add to the log; a tight retry writes thousands."""


class Disk:
    """A file system of `DISK_MIB` and a file that takes its room."""

    def __init__(self, folder):
        self.folder = folder
        self._filler = folder / "filler"

    def leave(self, free_mib):
        """Fill it until so much is left, 0 for nothing at all; others may write meanwhile."""
        with self._filler.open("ab") as file:
            while (size := self._free() - free_mib * MIB) > 0:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)

    def _free(self):
        told = os.statvfs(self.folder)
        return told.f_bavail * told.f_frsize

    def empty(self):
        """Give all of that room back."""
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        [needs("mount", package="mount"), "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@guarantee("G14.2", "disk_full_matrix")
def test_a_cloud_on_a_full_disk_ends_its_work_answers_507_and_recovers_by_itself(disk, own_cloud, stranger):
    cloud = own_cloud("--disk-floor-mb", FLOOR_MIB, data=disk.folder / "data")
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    ballast = cloud.data / "ballast"
    ended = cloud.spawn("jobs", "echo", "before")
    outcome = cloud.outcome(ended)
    running, waiting = cloud.spawn("jobs", "gate"), cloud.spawn("jobs", "gate")
    for job_id in (running, waiting):
        cloud.wait_line(job_id, "waiting")

    disk.leave(FLOOR_MIB // 2)
    until(lambda: _call(cloud).status == 507, "calls are refused")
    refused, deploy = _call(cloud), stranger.apothic("deploy", stranger.home / "jobs_app.py", "--json")
    has_ballast = ballast.exists()
    disk.leave(4)
    until(lambda: not ballast.exists(), "the ballast is given up")
    os.kill(next(pid for pid in descendants(cloud.pid) if name_of(pid) == "gate"), signal.SIGUSR1)
    (first,) = until(lambda: _succeeded(cloud, running, waiting), "one ended")
    other = waiting if first == running else running
    cancelled = cloud.request("POST", f"/v1/jobs/{other}/cancel")
    events = cloud.events_of(first, "job.end")
    disk.leave(0)
    full = [cloud.request("GET", "/v1/apps"), cloud.request("GET", f"/v1/jobs/{ended}"), _call(cloud)]
    disk.empty()
    until(lambda: _call(cloud).status == 202, "calls are taken again")
    until(ballast.exists, "the ballast is there again")
    after = cloud.outcome(cloud.spawn("jobs", "echo", "after"))
    log = server_log(cloud.data)

    assert (refused.json["code"], refused.json["retryable"]) == ("disk_low", True)
    assert refused.headers["Retry-After"]
    assert (deploy.status, deploy.error["code"]) == (7, "disk_low")
    assert has_ballast
    assert cancelled.status == 200
    assert len(events) == 1
    assert [answer.status for answer in full] == [200, 200, 507]
    assert cloud.outcome(ended) == outcome
    assert after["result"] == "after"
    assert cloud.request("GET", "/readyz").status == 200
    assert [line["event"] for line in log if line["event"].startswith("disk.")] == [
        "disk.low",
        "disk.ballast_given_up",
        "disk.enough",
    ]
    assert len(log) < LINES_MAX, json.dumps(log[-20:])


@guarantee("G14.2", "disk_full_matrix")
def test_a_cloud_that_was_killed_on_a_full_disk_starts_there_with_the_room_of_its_ballast(disk, own_cloud, stranger):
    cloud = own_cloud("--disk-floor-mb", FLOOR_MIB, data=disk.folder / "data")
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    ended = cloud.spawn("jobs", "echo", "before")
    outcome = cloud.outcome(ended)
    cloud.kill_everything()
    disk.leave(0)

    again = own_cloud("--disk-floor-mb", FLOOR_MIB, data=disk.folder / "data")
    refused = _call(again)
    read = again.outcome(ended)
    disk.empty()
    until(lambda: _call(again).status == 202, "calls are taken")

    assert refused.status == 507
    assert read == outcome
    assert again.outcome(again.spawn("jobs", "echo", "after"))["result"] == "after"
    assert f"less than {FLOOR_MIB} MiB are free: no new work is taken" in again.told


def _succeeded(cloud, *jobs):
    return [job for job in jobs if cloud.job(job)["status"] == "succeeded"]


def _call(cloud):
    return cloud.request("POST", "/v1/apps/jobs/functions/echo/calls?wait_s=0", {"args": [1]})
