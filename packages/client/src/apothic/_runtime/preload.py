"""Load the app before forking, and judge whether a fork of the loaded process is safe."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from apothic._loading import load_module
from apothic._runtime.processes import children_of, thread_count

_CALLS = frozenset(
    {"remote", "spawn", "remote_gen", "remote_events", "map", "starmap", "for_each", "map_unordered", "spawn_map"}
)
"""Names of what calls a function of an app."""


@dataclass(frozen=True)
class Preloaded:
    """The app was loaded.

    Attributes:
        reason: Why forking this process would be unsafe, as a sentence without a full stop; None when it is safe.
        handlers: Signal handlers that the app set; runners get them, the zygote keeps its own.
    """

    reason: str | None
    handlers: dict[int, Any]


def preload(root: Path, module: str) -> Preloaded:
    """Load the app's module and look at what the load left behind.

    Raises:
        BaseException: Whatever the module raises.
    """
    descriptors, handlers = _shared_descriptors(), _handlers()
    load_module(root, module)
    changed = {number: handler for number, handler in _handlers().items() if handler is not handlers[number]}
    for number in changed:
        signal.signal(number, handlers[number])
    return Preloaded(_reason(_shared_descriptors() - descriptors), changed)


def makes_calls(module: str) -> bool:
    """Whether functions of a module seem to call others; an answer that is wrong costs time or memory and no more."""
    try:
        return any(_names_calls(code) for code in _codes(vars(sys.modules[module])))
    except Exception:  # what stands for the module is none
        return False


def _codes(namespace: dict[str, Any]) -> Iterator[CodeType]:
    """Yield the code of plain and decorated functions; of other objects only the types are looked at."""
    function = getattr(sys.modules.get("apothic.function"), "Function", ())
    for found in list(namespace.values()):
        if issubclass(type(found), function):
            yield found.python_function.__code__
        elif type(found) is FunctionType:
            yield found.__code__


def _names_calls(code: CodeType) -> bool:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return not _CALLS.isdisjoint(code.co_names) or any(map(_names_calls, inner))


def _reason(descriptors: set[str]) -> str | None:
    threads = thread_count() - 1
    if threads:
        return f"importing the app left {threads} thread{'s' * (threads > 1)} running"
    if children_of(os.getpid()):
        return "importing the app left a child process"
    if descriptors:
        return f"importing the app left {sorted(descriptors)[0]} open"
    return None


def _handlers() -> dict[int, Any]:
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: handler for number, handler in found.items() if handler is not None}


def _shared_descriptors() -> set[str]:
    """Descriptors that processes must not share: all but files opened for reading and devices."""
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if _is_shared(int(name)):
                found.add(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def _is_shared(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
        return False
    is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return not (stat.S_ISREG(mode) and is_read_only)
