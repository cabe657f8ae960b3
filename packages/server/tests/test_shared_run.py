"""When several processes share a run of the tests, one of them prints what all have skipped and noted."""

import subprocess
import sys

SKIPPING = """
from apothic_server.testing.skips import needs, note

def test_works(request):
    note(request.config, "left something out")

def test_needs_a_program():
    needs("a-program-nobody-has", package="a-package")
"""


def test_skips_and_notes_of_all_processes_are_told_and_strictness_holds(tmp_path):
    (tmp_path / "test_it.py").write_text(SKIPPING)
    plugins = ("-p", "apothic_server.testing.skips", "-p", "no:cacheprovider", "-n", "1")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-skips", *plugins, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "needs `a-program-nobody-has`: apt-get install a-package" in done.stdout
    assert done.stdout.count("note: left something out") == 1
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]
