"""The Python interpreters of this machine that can run user code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MINORS = range(10, 20)
"""Minor versions of Python 3 that are looked for on PATH; the runtime needs 3.10."""

_PROBE = (
    "import os, sys; "
    "print('%d.%d' % sys.version_info[:2], sys.base_prefix, os.path.realpath(sys.executable), sep='\\n')"
)


@dataclass(frozen=True)
class Interpreter:
    """One base interpreter, outside any virtual environment.

    Attributes:
        version: `major.minor`.
        executable: Real path of the program.
        prefix: Folder of its standard library.
    """

    version: str
    executable: Path
    prefix: Path


def find_interpreters() -> dict[str, Interpreter]:
    """Return the usable interpreters by `major.minor`: the worker's own base interpreter always, others from PATH.

    Wrapper scripts on PATH are passed over: what they start depends on the state of somebody's shell.
    """
    own = _own()
    names = [f"python3.{minor}" for minor in MINORS if f"3.{minor}" != own.version]
    paths = [path for path in map(shutil.which, names) if path and not _is_script(path)]
    with ThreadPoolExecutor(max_workers=len(MINORS)) as pool:
        others = [interpreter for interpreter in pool.map(_probe, paths) if interpreter]
    return {interpreter.version: interpreter for interpreter in [*others, own]}


def _own() -> Interpreter:
    executable = str(getattr(sys, "_base_executable", sys.executable))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Interpreter(version, Path(os.path.realpath(executable)), Path(sys.base_prefix))


def _is_script(path: str) -> bool:
    with Path(path).open("rb") as program:
        return program.read(2) == b"#!"


def _probe(path: str) -> Interpreter | None:
    """Run the program: only what answers is an interpreter (a shim without a version behind it is none)."""
    try:
        done = subprocess.run([path, "-I", "-S", "-c", _PROBE], capture_output=True, text=True, timeout=10, check=True)
        version, prefix, executable = done.stdout.splitlines()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(version, Path(executable), Path(prefix))
