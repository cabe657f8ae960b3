"""User code that outlived its worker is known by the variables that it began with."""

import subprocess
import sys

from apothic.wire.attempts import SOCKET_VARIABLE
from apothic_worker.survivors import end_survivors

ORPHAN = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"


def test_an_orphan_that_began_with_our_variables_is_ended_and_others_are_not(tmp_path):
    ours, theirs, too = [tmp_path / name for name in ("worker/scratch", "other/scratch", "worker/scratch-too")]
    for folder in (ours, theirs, too):
        folder.mkdir(parents=True)
    started = [
        subprocess.Popen([sys.executable, "-c", ORPHAN], env=variables, stdout=subprocess.PIPE)
        for variables in (
            {"TMPDIR": f"{ours}/zygote-1"},
            {"HOME": "/", SOCKET_VARIABLE: f"{ours}/door-1/api"},
            {"TMPDIR": f"{theirs}/zygote-1"},
            {"TMPDIR": f"{ours}-too/zygote-1", "NOTE": f"{ours}/zygote-1"},
        )
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline()

    ended = end_survivors(ours)
    rest = end_survivors(theirs) + end_survivors(too)

    assert (ended, rest) == (2, 2)
    assert end_survivors(ours) == 0
    for process in started:
        process.communicate()
