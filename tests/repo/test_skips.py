"""Skips are listed with their reason, and --strict-skips makes them fail the run."""

import subprocess
import sys
from pathlib import Path

PLUGIN = ("-p", "apothic_server.testing.skips", "-p", "no:cacheprovider")
SKIPPING = """
import pytest
from apothic_server.testing.skips import needs, note

def test_works(request):
    note(request.config, "left something out")

def test_needs_a_program():
    needs("a-program-nobody-has", package="a-package")
"""


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, *options, "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_skip_is_listed_with_the_package_that_enables_the_test(tmp_path: Path):
    done = _pytest(tmp_path)

    assert done.returncode == 0
    assert "needs `a-program-nobody-has`: apt-get install a-package" in done.stdout
    assert done.stdout.count("note: left something out") == 1


def test_a_skip_fails_a_strict_run_that_still_ends_with_the_summary(tmp_path: Path):
    done = _pytest(tmp_path, "--strict-skips")

    assert done.returncode == 1
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_a_strict_run_without_skips_passes(tmp_path: Path):
    assert _pytest(tmp_path, "--strict-skips", "-k", "works").returncode == 0
