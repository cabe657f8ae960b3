"""The endpoint file: tells SDK and command line of this user where the cloud is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

from apothic_server import identity
from apothic_server.local_process import started_at


def check(path: Path) -> None:
    """Check, before anything is started, that the file can be written; leaves nothing behind.

    Raises:
        FolderError: It cannot.
    """
    if _names_live_cloud(path):
        return  # nothing is going to be written
    try:
        there = next(folder for folder in path.parents if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None
    if path.is_dir():
        raise _unwritable(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))


@contextlib.contextmanager
def written(path: Path, url: str, key: str, values: Path) -> Generator[bool]:
    """Tell clients of this user where the cloud is; yields False when the file names another live cloud.

    Args:
        values: Socket on which the cloud takes and gives large values.

    Raises:
        FolderError: The file cannot be written.
    """
    if _names_live_cloud(path):
        yield False
        return
    process = {"pid": os.getpid(), "started": started_at(os.getpid())}
    content = {"url": url, "key": key, "values": str(values), **process}
    try:
        identity.write_private(path, json.dumps(content).encode())
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield True
    finally:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("pid") == os.getpid():
                path.unlink()


def _names_live_cloud(path: Path) -> bool:
    """Whether the cloud that an endpoint file names lives, and not a process that got its number later."""
    try:
        told = json.loads(path.read_text())
        pid, started = told["pid"], told["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return pid != os.getpid() and type(pid) is int and started is not None and started_at(pid) == started


def _unwritable(path: Path, error: OSError) -> identity.FolderError:
    return identity.FolderError(
        f"cannot write the endpoint file {path}: {error.strerror}; choose another --endpoint or say --no-endpoint"
    )
