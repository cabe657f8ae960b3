"""What is loaded before anything is done: little, so that the command line answers at once."""

import subprocess
import sys

import pytest

HEAVY = {"asyncio", "cloudpickle", "concurrent.futures", "email", "http.client", "multiprocessing", "pathspec", "rich",
         "ssl", "tomllib", "unittest", "urllib.request"}  # fmt: skip


def loaded(code: str, **environment: str) -> set[str]:
    """Return the modules that some code loads beyond those of the interpreter's start."""
    program = (
        f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment or None)
    return set(ended.stderr.split("\n")[-2].split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "apothic"}


def test_importing_the_package_loads_nothing_else():
    assert ours(loaded("import apothic")) == {"apothic"}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_loads_click_and_three_modules(words):
    found = loaded(f"from apothic.cli.main import main\nmain({words})")

    assert ours(found) == {
        "apothic", "apothic.cli", "apothic.cli.main", "apothic.cli.settings", "apothic.wire", "apothic.wire.version",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in found} & {name.partition(".")[0] for name in HEAVY} == set()


def test_a_list_loads_nothing_heavy(connected):
    """Commands that ask the cloud need sockets and JSON; no event loop, no TLS over http, no drawing in a pipe."""
    environment = {"APOTHIC_BASE_URL": connected.url, "APOTHIC_API_KEY": "lk_scripted", "HOME": "/"}
    found = loaded('from apothic.cli.main import main\nmain(["ps"])', **environment)

    assert HEAVY & found == set()
    assert "apothic.client" in found
    assert not any(name.startswith("apothic.cli.deploy") for name in found)
