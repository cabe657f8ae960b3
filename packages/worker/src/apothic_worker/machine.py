"""What this machine offers, found by doing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from apothic.wire.link import Machine
from apothic_worker import journal
from apothic_worker.config import Config
from apothic_worker.executors.base import Executor, ExecutorUnavailable
from apothic_worker.executors.process import ProcessExecutor
from apothic_worker.executors.sandbox import SandboxExecutor, find_bubblewrap
from apothic_worker.folders import Folders
from apothic_worker.interpreters import Interpreter
from apothic_worker.limits import Limits

MEMORY_SHARE = 0.8
"""Part of the machine's memory that is offered when nothing is configured."""


def choose_executor(config: Config, folders: Folders, interpreters: dict[str, Interpreter]) -> Executor:
    """Return the executor that was asked for, by default `sandbox`.

    Raises:
        ExecutorUnavailable: It does not work here; another one is never taken instead.
    """
    if config.executor == "process":
        return ProcessExecutor(folders.scratch, trust_user_code=config.trust_user_code)
    if not Path("/proc/self/ns/user").exists():
        raise ExecutorUnavailable("the executor `sandbox` needs Linux; start with --executor process --trust-user-code")
    return SandboxExecutor(find_bubblewrap(), interpreters.values(), [config.data])


def describe(config: Config, executor: Executor, limits: Limits, interpreters: dict[str, Interpreter]) -> Machine:
    """Return the report for the server."""
    machine = Machine(
        host=socket.gethostname(),
        executor=executor.name,
        isolation=list(executor.isolation),
        enforced=limits.enforced,
        not_enforced=dict(limits.not_enforced),
        cpus=config.cpus or float(len(os.sched_getaffinity(0))),
        memory_mb=config.memory_mb or _memory_mb(),
        pythons=sorted(interpreters, key=lambda version: int(version.partition(".")[2])),
    )
    journal.info("machine", executor=machine.executor, enforced=machine.enforced, not_enforced=machine.not_enforced)
    return machine


def _memory_mb() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(total * MEMORY_SHARE) // (1024 * 1024)
