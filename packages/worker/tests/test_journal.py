"""The worker's own log when its disk is full."""

import subprocess
import sys
from pathlib import Path


def test_a_full_disk_does_not_end_who_writes_to_the_log():
    program = "from apothic_worker import journal\njournal.info('disk.full')\nprint('went on')"

    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)

    assert ended.stdout == b"went on\n"
