"""The log of the server when its disk is full."""

from contextlib import suppress
from pathlib import Path

import structlog

from apothic_server import logs


def test_who_logs_does_not_fail_while_the_disk_is_full():
    went_on = False
    # What could not be written makes the closing of the file fail.
    with suppress(OSError), Path("/dev/full").open("w", buffering=1) as full:
        try:
            logs.configure(full, is_terminal=False)
            structlog.get_logger("test").warning("disk.full")
            went_on = True
        finally:
            structlog.reset_defaults()

    assert went_on
