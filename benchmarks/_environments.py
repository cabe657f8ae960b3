"""Environments of the peers: `.bench/NAME`, made by uv with the pinned packages of `_environments/NAME.txt`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
INSTALL_S = 900


class NotMeasured(Exception):
    """A contender cannot be measured on this machine; the text says why."""


def environment(name: str) -> Path:
    """Return the folder of an environment, made or made anew when its pins changed.

    Raises:
        NotMeasured: It cannot be made.
    """
    pins = (Path(__file__).with_name("_environments") / f"{name}.txt").read_text()
    folder = BENCH / name
    made = folder / ".pins"
    if made.exists() and made.read_text() == pins:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making .bench/{name} …", file=sys.stderr)
    uv = str(Path(sys.executable).with_name("uv"))
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], env, name)
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        str(folder / "bin" / "python"),
        "-r",
        "-",
    ]
    _run(install, env, name, pins)
    made.write_text(pins)
    return folder


def redis_server() -> str:
    """Return the path of Debian's redis-server, or that of another system.

    Raises:
        NotMeasured: There is none.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise NotMeasured("redis-server is missing")
    return found


def _run(command: list[str], env: dict[str, str], name: str, text: str = "") -> None:
    try:
        done = subprocess.run(command, env=env, input=text, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(f"the environment {name} could not be made: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].strip()
        raise NotMeasured(f"the environment {name} could not be made: {last}")
