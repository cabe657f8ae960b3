"""A pytest plugin for tests that look at the whole machine: while one runs, no other process of the run has a test.

Mark such a test `pytest.mark.alone`. Without other processes (pytest-xdist) the mark changes nothing.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

DOOR, ROOM = "door", "room"
_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "alone: looks at the whole machine; no other test runs meanwhile")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell another process of this run where the locks are."""
    stash: pytest.Stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="pytest-alone-"))
    node.workerinput["alone"] = str(stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the locks."""
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test beside those of the other processes, or while they wait."""
    told: dict[str, Any] = getattr(item.config, "workerinput", {})
    if "alone" not in told:
        return (yield)
    # Who wants to be alone holds the door until the room is empty; everybody else only passes through it.
    folder, is_alone = Path(told["alone"]), item.get_closest_marker("alone") is not None
    with ExitStack() as held:
        with _locked(folder / DOOR, fcntl.LOCK_EX):
            held.enter_context(_locked(folder / ROOM, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH))
        return (yield)


@contextmanager
def _locked(path: Path, kind: int) -> Generator[None]:
    opened = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, kind)
        yield
    finally:
        os.close(opened)
