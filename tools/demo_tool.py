#!/usr/bin/env python3
"""`make demo-tool`: deploy an app with packages twice, run it both ways, go back, compare; on a cloud of its own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from apothic_server.demo import cloud, say

APP = Path(__file__).resolve().parents[1] / "examples/sales"
APOTHIC = Path(sys.executable).with_name("apothic")

SECOND_DEPLOY_S = 1.0
"""A deploy of a small change is to take less. A busy machine may miss it, so the demo says so and does not fail."""


class Shell:
    """Shows commands and runs them in one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def run(self, *words: str) -> float:
        """Run one command of `apothic` to its end and return the seconds it took; a failure ends the demo."""
        say(f"\n$ {shlex.join(('apothic', *words))}")
        began = time.monotonic()
        done = subprocess.run([APOTHIC, *words], cwd=self.folder, env=self.environment, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        return time.monotonic() - began


def main() -> int:
    """Run the demo; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="apothic-demo-") as temporary:
        folder = Path(temporary)
        shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "cloud").mkdir()
        with cloud(folder / "cloud") as environment:
            _show(Shell(folder / "app", {**environment, "PYTHONDONTWRITEBYTECODE": "1"}))
    say("\nnothing is left running")
    return 0


def _show(shell: Shell) -> None:
    say("\n1. A package of three modules that import numpy and pydantic: what is uploaded, then the deploy.")
    shell.run("deploy", "sales/app.py", "--dry-run")
    shell.run("deploy", "sales/app.py")

    say("\n2. It runs by name, with its arguments as JSON. The first call waits until the packages are installed.")
    shell.run("run", "summary", "--app-name", "sales", "--payload", '{"kwargs": {"minimum": 1000}}')

    say("\n3. One line of one module changes.")
    figures = shell.folder / "sales/figures.py"
    figures.write_text(figures.read_text().replace('"median": ', '"largest": max(amounts, default=0), "median": '))
    shell.run("diff", "sales/app.py")
    took_s = shell.run("deploy", "sales/app.py")
    verdict = "met" if took_s < SECOND_DEPLOY_S else "missed"
    say(f"(the second deploy took {took_s:.2f} s; promised is less than {SECOND_DEPLOY_S:g} s: {verdict})")

    say("\n4. It runs by file, too, with its parameters as options; packages are there, so it starts at once.")
    shell.run("run", "sales/app.py::summary", "--minimum", "1000")

    say("\n5. Back to the first version: nothing is uploaded and nothing is built.")
    shell.run("rollback", "sales")
    shell.run("history", "sales")
    shell.run("diff", "sales", "--from", "3", "--to", "2")
    shell.run("run", "summary", "--app-name", "sales")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "120")
    sys.exit(main())
