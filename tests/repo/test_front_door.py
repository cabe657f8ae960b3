"""The commands of the Makefile work on a bare machine and say clearly what is missing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIND = ROOT / "tools/find-python"


def _find(path: Path, wanted: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(path)}
    return subprocess.run(["/bin/sh", str(FIND), wanted], env=environment, capture_output=True, text=True, check=False)


def _python(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_machine_without_python_gets_a_sentence(tmp_path: Path):
    done = _find(tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("No Python 3.11, 3.12 or 3.13 found.")


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path):
    _python(tmp_path, "python3", f'exec {sys.executable} -c "import sys; sys.version_info = (3, 9); $2"')

    assert _find(tmp_path).stderr.startswith("No Python 3.11, 3.12 or 3.13 found.")
    assert _find(tmp_path, "python3").stderr == "PYTHON=python3 is not a Python 3.11, 3.12 or 3.13 that runs here.\n"


def test_a_python_without_venv_names_the_package_that_brings_it(tmp_path: Path):
    _python(tmp_path, "python3.11", f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')

    done = _find(tmp_path)

    assert done.returncode == 1
    assert re.search(r"apt-get install python3\.\d+-venv", done.stderr)


def test_the_first_python_that_can_make_environments_is_taken(tmp_path: Path):
    _python(tmp_path, "python3.11", "exit 127")
    _python(tmp_path, "python3.12", f'exec {sys.executable} "$@"')

    assert _find(tmp_path).stdout == "python3.12\n"


def test_every_command_of_the_makefile_is_listed_by_make():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())

    assert set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) == phony


def test_the_environment_is_made_by_the_locked_uv():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = next(package["version"] for package in lock["package"] if package["name"] == "uv")

    assert re.findall(r'^ *"uv==(.*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE) == [locked]


def test_scripts_can_be_executed():
    scripts = [ROOT / ".ci/run", *(path for path in (ROOT / "tools").iterdir() if path.suffix == "")]

    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []
