"""`python -m apothic` is the command line `apothic`."""

import os
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code, also when Ctrl-C comes before it is loaded."""
    try:
        _open_standard_streams()
        from apothic.cli.main import main as run
    except KeyboardInterrupt:
        return _INTERRUPTED
    return run()


def _open_standard_streams() -> None:
    """Open what the caller closed, as `/dev/null`; else the next file or socket would be standard output."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
