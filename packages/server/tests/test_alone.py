"""A test that is alone keeps every other process of the run from beginning one."""

import subprocess
import sys

TESTS = """
import fcntl, os, pathlib, pytest

def is_free(config, kind):
    opened = os.open(pathlib.Path(config.workerinput["alone"], "room"), os.O_RDONLY)
    try:
        fcntl.flock(opened, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(opened)
    return True

def test_beside_others(pytestconfig):
    assert is_free(pytestconfig, fcntl.LOCK_SH)
    assert not is_free(pytestconfig, fcntl.LOCK_EX)

@pytest.mark.alone
def test_alone(pytestconfig):
    assert not is_free(pytestconfig, fcntl.LOCK_SH)
"""


def test_nobody_enters_while_a_test_is_alone(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    plugins = ("-p", "apothic_server.testing.alone", "-p", "no:cacheprovider", "--strict-markers", "-n", "1")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 passed")
