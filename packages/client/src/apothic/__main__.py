"""`python -m apothic` is the command line `apothic`."""

import sys

from apothic.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
