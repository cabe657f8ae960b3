"""Driver of the disk yardstick: append 4 KiB and fdatasync, in the folder's file system.

Usage: disk.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rounds import claim_output, serve, timed

BLOCK = b"\xa5" * 4096


def main() -> None:
    """Measure until the input ends."""
    answer = claim_output()
    file = os.open(Path(sys.argv[1]) / "appended", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def append(_: int) -> None:
        os.write(file, BLOCK)
        os.fdatasync(file)

    serve(answer, {"call": timed(append)})
    os.close(file)


if __name__ == "__main__":
    main()
