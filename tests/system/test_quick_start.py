"""The quick start: what a user without anything of ours but the wheels does, command by command."""

import subprocess
import sys

from .pages import ROOT, examples, has_printed
from .people import Person

PAGE = ROOT / "docs/quick-start.md"
DEADLINE_S = 240.0
SAME_SHELL = "[ ! -e ../shell ] || . ../shell\n{text}\nexport -p > ../shell\n"
"""Runs commands as the next ones in the shell of those before."""


def test_the_quick_start_leads_from_the_wheels_to_a_function_that_runs_by_itself(tmp_path):
    stranger = Person(tmp_path / "home", installs=True)
    folder = stranger.home / "work"
    folder.mkdir(parents=True)
    for package in ("client", "worker", "server"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
        subprocess.run(build, cwd=ROOT / "packages" / package, check=True, capture_output=True)
    try:
        _follow(stranger, folder)
    finally:
        stranger.apothic("down", "--data", stranger.home / ".apothic/data")


def _follow(stranger, folder):
    for example in examples(PAGE.read_text("utf-8")):
        if example.language == "python":
            (folder / example.file).write_text(example.text, "utf-8")
            continue
        ran = stranger.run("sh", "-ec", SAME_SHELL.format(text=example.text), cwd=folder, deadline_s=DEADLINE_S)

        told = f"{PAGE.name}:{example.line}\n{ran.out}\n{ran.err}"
        assert ran.status == example.status, told
        assert example.prints is None or has_printed(ran.out, example.prints), told
