"""What benchmarks do around their measurement: a folder that goes away, an end in good order, the result as JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _contenders import Broken
from _environments import BENCH

Measure = Callable[[argparse.Namespace, Path, ExitStack], dict[str, Any]]


def run(measure: Measure, options: argparse.Namespace) -> int:
    """Measure and return the exit code.

    Args:
        measure: Gets the options, a folder of its own, and what is undone at the end; returns what goes to `--json`.
    """
    # Ends drivers and folder also when the terminal or a time limit ends this process.
    signal.signal(signal.SIGTERM, _leave)
    BENCH.mkdir(exist_ok=True)
    try:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=BENCH))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            result = measure(options, folder, stack)
    except Broken as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _leave(_number: int, _frame: object) -> None:
    sys.exit(1)
