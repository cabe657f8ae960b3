"""`python -m apothic` is the command line `apothic`."""

import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code, also when Ctrl-C comes before it is loaded."""
    try:
        from apothic.cli.main import main as run
    except KeyboardInterrupt:
        return _INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
