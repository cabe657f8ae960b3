"""The first moments of a runner: from a forked child of the zygote to a process of its own."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apothic._runtime.output import buffer_c_streams_by_line
from apothic._runtime.processes import become_subreaper, die_with_parent

_SOCKET_DESCRIPTOR = 4_000
"""Where the runner's socket lives when the limit of open files allows: out of the way of user code that counts."""


@dataclass(frozen=True)
class RunnerStart:
    """All that a runner knows when it begins.

    Attributes:
        sock: Connection to the worker, not inherited by programs that user code starts.
        root: Folder of the unpacked archive.
        module: Module that holds the function.
        qualname: Name of the function in the module.
        tasks: Calls to execute at once.
        is_async: The function is `async def`.
    """

    sock: socket.socket
    root: Path
    module: str
    qualname: str
    tasks: int
    is_async: bool


def become_runner(parent: int, descriptors: list[int], handlers: dict[int, Any]) -> socket.socket:
    """Detach this freshly forked process from the zygote and return its socket to the worker.

    Args:
        parent: The zygote's process id.
        descriptors: Socket, standard output and standard error; the originals are closed.
        handlers: Signal handlers that the app set while it was loaded.
    """
    die_with_parent()
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
    os.setsid()
    become_subreaper()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    connection, stdout, stderr = descriptors
    sock = socket.socket(fileno=fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, _out_of_the_way()))
    _replace_standard_descriptors(stdout, stderr)
    for descriptor in descriptors:
        os.close(descriptor)
    os.register_at_fork(after_in_child=sock.close)
    buffer_c_streams_by_line()
    return sock


def _replace_standard_descriptors(stdout: int, stderr: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


def _out_of_the_way() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _SOCKET_DESCRIPTOR if soft == resource.RLIM_INFINITY else max(3, min(_SOCKET_DESCRIPTOR, soft - 16))
