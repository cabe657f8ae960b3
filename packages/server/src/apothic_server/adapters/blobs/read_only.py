"""A view of a folder through which nobody can write, whoever owns the files.

Who has a descriptor for reading can open it again for writing when the file's mode lets its owner, and change the mode
when he is the owner: `/proc/self/fd` keeps the file, not the mode it was opened with. What it keeps too is the mount
that the file was opened on. So the folder is mounted a second time, read-only and at no place, and files are opened
there: every way to write to them or to change their modes ends with EROFS.

Mounting needs rights that this process may lack; a child has them in namespaces of its own, and hands the mount over as
a descriptor, which lives on without it. Linux 5.12 and later; elsewhere, and where such namespaces are forbidden, there
is no view.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 20.0

_PROGRAM = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, CLONE, CLOEXEC, EMPTY_PATH, HERE = 0x20000, 0x10000000, 1, 0x80000, 0x1000, -100
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
check(libc.unshare(NEWNS if os.geteuid() == 0 else NEWNS | NEWUSER))
mount = check(libc.syscall(428, HERE, os.fsencode(sys.argv[1]), CLONE | CLOEXEC))
wanted = (ctypes.c_uint64 * 4)(RDONLY | NOSUID | NODEV | NOEXEC, 0, 0, 0)
check(libc.syscall(442, mount, b"", EMPTY_PATH, wanted, ctypes.sizeof(wanted)))
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"mount"], [mount])
"""
"""Calls `open_tree` (428) and `mount_setattr` (442), which have these numbers on every architecture."""


def read_only_view(folder: Path) -> int | None:
    """Return the descriptor of such a view of a folder, or None where there can be none; takes as long as a Python.

    Raises:
        OSError: No process can be started.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(folder), str(theirs.fileno())]
        try:
            done = subprocess.run(
                command, pass_fds=[theirs.fileno()], capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            return None
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
    if len(descriptors) != 1:
        return None
    if os.fstatvfs(descriptors[0]).f_flag & os.ST_RDONLY:
        return descriptors[0]
    os.close(descriptors[0])
    return None
