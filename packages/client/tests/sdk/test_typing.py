"""Editors infer results of calls: the checked files hold `assert_type` and expected errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "typing_tests"


def test_inferred_types_are_as_promised() -> None:
    checker = Path(sys.executable).parent / "basedpyright"
    done = subprocess.run([checker, FOLDER / "handles.py"], cwd=FOLDER.parents[2], capture_output=True, text=True)

    assert done.stdout.startswith("0 errors"), done.stdout + done.stderr
