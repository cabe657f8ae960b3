"""Starts `apothic` with what the harness changes in it: a planted bug, a shorter lease."""

import os
import sys

from apothic_server import bootstrap
from apothic_server.services import links

from .planted import PLANTED


def main():
    """Change what the environment asks for, then be `apothic`."""
    grace_s = float(os.environ.get("CHAOS_GRACE_S", "0"))
    if grace_s:
        links.GRACE_S = bootstrap.GRACE_S = grace_s
        links.HEARTBEAT_S = grace_s / 6
    bug = os.environ.get("CHAOS_PLANT")
    if bug:
        PLANTED[bug].plant()
    from apothic.__main__ import main as apothic

    sys.argv[0] = "apothic"
    return apothic()


if __name__ == "__main__":
    sys.exit(main())
