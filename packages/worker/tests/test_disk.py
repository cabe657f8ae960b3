"""A worker on a small disk of its own that user code fills up."""

import os
import subprocess

import pytest

from apothic.wire import link
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import needs
from apothic_worker.disk import culprit, free_bytes

from .conftest import OPTIONS, linked

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
DISK_MIB, FLOOR_MIB = 160, 32

APP = """
import contextlib, os, tempfile, threading

def pour():
    "Writes without end, also when nothing more fits."
    with tempfile.TemporaryFile() as file:
        print("pours", flush=True)
        while True:
            try:
                os.write(file.fileno(), bytes(1024 * 1024))
            except OSError:
                threading.Event().wait(0.01)

def drip(gate):
    "Writes a little now and then, until the gate is gone."
    with tempfile.TemporaryFile() as file:
        print("drips", flush=True)
        while os.path.exists(gate):
            with contextlib.suppress(OSError):
                os.write(file.fileno(), bytes(100))
            threading.Event().wait(0.01)
    return "done"
"""


@pytest.fixture
def disk(tmp_path):
    """A file system of `DISK_MIB` that counts what is written to it, as a memory file system does not."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB * MIB)
    subprocess.run([needs("mkfs.ext4", package="e2fsprogs"), "-q", "-F", "-m", "0", image], check=True)
    mounted = subprocess.run([needs("mount", package="mount"), "-o", "loop", image, folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@guarantee("G14.2", "disk_full_matrix")
async def test_below_the_floor_the_runner_that_writes_most_is_stopped_and_its_neighbour_goes_on(disk, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    options = (*OPTIONS, "--executor", "process", "--trust-user-code", "--disk-floor-mb", str(FLOOR_MIB))
    async with linked(disk / "data", *options) as (server, _):
        drips, pours = server.deploy({"app.py": APP}), server.deploy({"app.py": APP})
        drip = server.assignment(await server.started_runner(drips, "drip"), str(gate))
        pour = server.assignment(await server.started_runner(pours, "pour"))
        for order in (drip, pour):
            await server.send(assign=[order])
            await server.wait_for(link.Logs, lambda item, job=order.job: item.job == job)

        stopped = await server.finished(pour)
        ended = await server.wait_for(link.RunnerEnded, lambda item: item.runner == pour.runner)
        gate.unlink()
        spared = await server.finished(drip)
        again = await server.call(await server.started_runner(pours, "drip"), str(gate))
        left = free_bytes(disk)

    assert (stopped.outcome, stopped.error.code) == ("failed", "disk_limit")
    assert "disk is nearly full" in stopped.error.message
    assert ended.reason == "the disk is nearly full"
    assert (spared.outcome, again.outcome) == ("succeeded", "succeeded")
    assert left > FLOOR_MIB * MIB


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ({}, None),
        ({"a": [500]}, None),
        ({"a": [500, 500], "b": [0, 0]}, None),
        ({"a": [900, 909], "b": [0, 8]}, None),
        ({"a": [900, 909], "b": [0, 9, 10]}, "b"),
        ({"a": [0, 90, 90], "b": [0, 0, 80]}, "a"),
    ],
)
def test_who_wrote_most_lately_is_found_and_who_wrote_little_is_not(looks, found):
    assert culprit(looks, 640) == found
