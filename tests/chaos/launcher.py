"""Starts `apothic` or `apothic-worker` with what the harness changes in it: a planted bug."""

import os
import sys

from .planted import PLANTED


def main():
    """Plant what the environment asks for, if it belongs here, then be the command."""
    is_worker = sys.argv[1] == "worker"
    bug = PLANTED.get(os.environ.get("CHAOS_PLANT", ""))
    if bug is not None and bug.is_of_worker == is_worker:
        bug.plant()
    if is_worker:
        from apothic_worker.cli import main as worker

        return worker(sys.argv[2:])
    from apothic.__main__ import main as apothic

    sys.argv[0] = "apothic"
    return apothic()


if __name__ == "__main__":
    sys.exit(main())
