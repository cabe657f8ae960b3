"""Becomes PostgreSQL under an identity that it accepts: it refuses to run as user 0.

Run as a program by path, before the first thread and without the packages of the environment:

    python -I -S pgexec.py user-namespace -- /path/postgres -D data
    python -I -S pgexec.py user NAME -- /path/postgres -D data

`user-namespace` enters a user namespace of its own in which user 0 outside is nobody (65534) inside: no capability, no
other user's files, and every file it makes belongs to user 0 outside. `user` drops to a real user instead. The process
id stays the same, because the program is replaced. What went wrong is one line on standard error and exit status 97.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from pathlib import Path

NOBODY = 65534
CLONE_NEWUSER = 0x10000000
EXIT_NO_IDENTITY = 97


def main(arguments: list[str]) -> None:
    """Take on the identity, then replace this process by the program; returns never."""
    cut = arguments.index("--")
    how, command = arguments[:cut], arguments[cut + 1 :]
    try:
        match how:
            case ["user-namespace"]:
                enter_user_namespace()
            case ["user", name]:
                become(name)
            case _:
                raise OSError(f"unknown identity {how}")
    except (OSError, KeyError) as error:
        sys.stderr.write(f"cannot take on the identity of the store's processes: {error}\n")
        os._exit(EXIT_NO_IDENTITY)
    os.umask(0o077)
    os.execv(command[0], command)  # noqa: S606 - no shell on purpose


def enter_user_namespace() -> None:
    """Move this process into a new user namespace that maps our user and group to nobody."""
    user, group = os.geteuid(), os.getegid()
    os.setgroups([])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no user namespace: {os.strerror(code)}")
    # A process may only map itself, and only after it gave up changing its groups.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")


def become(name: str) -> None:
    """Drop from user 0 to the user `name` and its groups for good."""
    entry = pwd.getpwnam(name)
    os.initgroups(name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)


if __name__ == "__main__":
    main(sys.argv[1:])
