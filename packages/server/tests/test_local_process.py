"""A worker process is found by what its folder proves, never by a number alone."""

import json
import subprocess
import sys

import pytest

from apothic_server.local_process import LOCK, RECORD, find

HOLDER = """
import fcntl, json, os, pathlib, signal, sys
root, started, takes_lock = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "lock"
lock = os.open(root / "worker.lock", os.O_RDWR | os.O_CREAT)
if takes_lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
own = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
told = {"pid": os.getpid(), "started": own + started, "version": "1", "incarnation": "i"}
(root / "worker.json").write_text(json.dumps(told))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder as a worker does, or nearly so."""
    running = []

    def start(*, started=0, lock="lock"):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(started), lock]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "ready\n"
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_a_worker_that_holds_its_folder_is_found_and_ended(tmp_path, holder):
    process = holder()
    found = find(tmp_path)
    assert found is not None
    found.end(10.0)
    found.close()

    assert (found.pid, found.incarnation, found.version) == (process.pid, "i", "1")
    assert found.command[1:3] == ["-c", HOLDER]
    assert process.wait(10) == -15


@pytest.mark.parametrize("changes", [{"started": 1}, {"lock": "none"}], ids=["a pid used again", "no lock"])
def test_a_process_that_does_not_hold_the_folder_is_left_alone(tmp_path, holder, changes):
    process = holder(**changes)

    assert find(tmp_path) is None
    assert process.poll() is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", json.dumps({"pid": "1", "started": 1, "version": "", "incarnation": ""}), '{"pid": 1}'],
)
def test_a_record_that_says_nothing_finds_nobody(tmp_path, holder, text):
    holder()
    (tmp_path / RECORD).write_text(text)

    assert find(tmp_path) is None


def test_an_empty_folder_has_no_worker(tmp_path):
    assert find(tmp_path) is None
    assert not (tmp_path / LOCK).exists()
