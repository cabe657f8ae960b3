"""The zygote: a single-threaded parent that has loaded one deployment's app and forks its runners.

Rules it keeps:

- It runs user code only while it loads the app, never afterwards; a load that left threads, children or open
  connections behind is reported, and nothing is forked from it.
- Every runner is a subreaper: what it starts, however detached, stays below it. When a runner ends, all that is left of
  it becomes a child of the zygote. A child that is no live runner is therefore a leftover and is killed.
- `exited` is sent when no leftover exists. With several runners ending at once all wait for the last leftover.
- When the worker closes the control socket, everything is killed and the zygote ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apothic._runtime import runner
from apothic._runtime.control import Control, Message
from apothic._runtime.errors import describe
from apothic._runtime.output import flush_streams, install_streams
from apothic._runtime.preload import Preloaded, makes_calls, preload
from apothic._runtime.processes import become_subreaper, children_of, give_memory_back, kill_tree, signal_tree
from apothic._runtime.start import RunnerStart, become_runner
from apothic._serialize import PYTHON_MINOR
from apothic.wire.runner import error_to_json
from apothic.wire.values import RemoteError
from apothic.wire.version import RUNNER_PROTOCOL

_LEFTOVER_RECHECK_MS = 20
_WAKEUP_READ_MAX = 4096
_PICKLES = ("pickle", "cloudpickle")
"""What the first pickled value needs."""

_CALLS = ("apothic.client", "apothic._invocations", "apothic._blocking", "apothic._mapping", "apothic.group")
"""What the first call of a function by another one needs: a tenth of a second for each runner that has to load it."""


def main(descriptor: int) -> None:
    """Serve the control socket `descriptor`; returns only in a forked runner that has finished."""
    start = _zygote(descriptor)
    if start is None:
        flush_streams()
        os._exit(0)  # no exit handlers: those that the app registered belong to runners
    runner.main(start)


def _zygote(descriptor: int) -> RunnerStart | None:
    _close_all_but(descriptor)
    become_subreaper()
    install_streams()
    sys.argv = [""]
    control = Control(descriptor)
    message = control.receive()
    if message is None or message.head["kind"] != "load":
        return None
    loaded = _load(message.head)
    flush_streams()
    if isinstance(loaded, RemoteError):
        control.send(kind="load_failed", error=error_to_json(loaded))
        return None
    is_preloaded = bool(message.head["preload"]) and loaded.reason is None
    zygote = Zygote(control, message.head, loaded)
    gc.collect()
    give_memory_back()
    gc.freeze()
    control.send(kind="ready", python=PYTHON_MINOR, preloaded=is_preloaded, reason=loaded.reason)
    return zygote.serve()


def _close_all_but(descriptor: int) -> None:
    os.closerange(3, descriptor)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    os.closerange(descriptor + 1, highest + 1)


def _load(request: dict[str, Any]) -> Preloaded | RemoteError:
    if request["protocol"] != RUNNER_PROTOCOL:
        message = (
            f"worker speaks runner protocol {request['protocol']}, the runtime {RUNNER_PROTOCOL}; reinstall the worker"
        )
        return RemoteError(type="builtins.RuntimeError", message=message, code="load_failed")
    root = Path(request["path"])
    if not request["preload"]:
        return Preloaded(None, {})
    try:
        loaded = preload(root, str(request["module"]))
    except BaseException as error:
        return describe(error, "load_failed")
    _warm_up(_PICKLES)
    if makes_calls(str(request["module"])):
        _warm_up(_CALLS)
    return loaded


def _warm_up(names: Sequence[str]) -> None:
    """Import what runners would have to; after the app, whose own copies go first."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            return


class Zygote:
    """Forks, signals and reaps runners as the control socket says.

    Args:
        control: Connection to the worker.
        request: Head of the `load` message.
        loaded: What the load left; nothing is forked when it has a `reason`.
    """

    def __init__(self, control: Control, request: dict[str, Any], loaded: Preloaded) -> None:
        self._control = control
        self._request = request
        self._loaded = loaded
        self._runners: dict[int, str] = {}
        self._ended: dict[str, int] = {}
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> RunnerStart | None:
        """Obey until the worker is gone, then kill all; in a forked child return at once what it has to run."""
        while (message := self._next_message()) is not None:
            kind = message.head["kind"]
            if kind == "fork":
                start = self._fork(message)
                if start is not None:
                    return start
            elif kind == "kill":
                self._signal(str(message.head["runner"]), int(message.head["signal"]))
        self._kill_all()
        return None

    def _next_message(self) -> Message | None:
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wakeup_read, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(_LEFTOVER_RECHECK_MS if self._ended else None)}
            self._reap()
            if self._control.fileno() in ready:
                return self._control.receive()

    def _fork(self, message: Message) -> RunnerStart | None:
        name = str(message.head["runner"])
        flush_streams()
        parent = os.getpid()
        pid = self._fork_process()
        if pid == 0:
            return self._as_runner(parent, message)
        message.close()
        if pid is None:
            self._control.send(kind="exited", runner=name, code=None, signal=None)
        else:
            self._runners[pid] = name
            self._control.send(kind="forked", runner=name, pid=pid)
        return None

    def _fork_process(self) -> int | None:
        if self._loaded.reason is not None:
            return None
        try:
            return os.fork()
        except OSError:  # too many processes or too little memory
            return None

    def _as_runner(self, parent: int, message: Message) -> RunnerStart:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wakeup_read)
        os.close(self._wakeup_write)
        self._control.close()
        head = message.head
        return RunnerStart(
            sock=become_runner(parent, message.descriptors, self._loaded.handlers),
            root=Path(self._request["path"]),
            module=str(self._request["module"]),
            qualname=str(head["qualname"]),
            tasks=int(head["tasks"]),
            is_async=bool(head["is_async"]),
        )

    def _signal(self, name: str, number: int) -> None:
        for pid, runner_name in self._runners.items():
            if runner_name == name:
                signal_tree(pid, number)

    def _reap(self) -> None:
        self._drain_wakeups()
        while (ended := _ended_child()) is not None:
            pid, status = ended
            name = self._runners.pop(pid, None)
            if name is not None:
                self._ended[name] = status
        if self._ended and not self._kill_leftovers():
            self._report_ended()

    def _drain_wakeups(self) -> None:
        try:
            os.read(self._wakeup_read, _WAKEUP_READ_MAX)
        except BlockingIOError:
            return

    def _kill_leftovers(self) -> bool:
        leftovers = children_of(os.getpid()) - self._runners.keys()
        for pid in leftovers:
            kill_tree(pid)
        return bool(leftovers)

    def _report_ended(self) -> None:
        for name, status in self._ended.items():
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
            self._control.send(kind="exited", runner=name, code=code, signal=number)
        self._ended.clear()

    def _kill_all(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup_read, select.POLLIN)
        while children := children_of(os.getpid()):
            for pid in children:
                kill_tree(pid)
            poll.poll(_LEFTOVER_RECHECK_MS)
            self._reap()


def _ended_child() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
