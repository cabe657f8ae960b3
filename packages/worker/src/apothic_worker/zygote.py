"""The worker's end of a zygote: start it, have the app loaded, fork runners from it, learn when they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apothic.wire.frames import FrameError, decode_frame, encode_frame
from apothic.wire.images import ImageSpec
from apothic.wire.link import StartRunner
from apothic.wire.runner import error_from_json
from apothic.wire.values import RemoteError
from apothic.wire.version import RUNNER_PROTOCOL
from apothic_worker import journal
from apothic_worker.door import Door
from apothic_worker.executors.base import Executor, Launch, Zygoted
from apothic_worker.failures import StartFailed, death, failure
from apothic_worker.interpreters import Interpreter
from apothic_worker.limits import Bounds, Limits
from apothic_worker.output import OutputPipes
from apothic_worker.relay import Relay
from apothic_worker.values import Values, ValuesDoor

MESSAGE_MAX = 1024 * 1024
OUTPUT_KEPT = 64 * 1024
END_GRACE_S = 1.0
"""Time for a zygote that closed its control socket to end by itself, so that its exit code can be told."""

OnExited = Callable[[int | None, int | None, bool], None]
"""Takes exit code, signal, and whether the whole zygote is gone."""


@dataclass(frozen=True)
class Site:
    """Where zygotes of this worker are started."""

    executor: Executor
    limits: Limits
    tree: Path
    relay: Relay
    doors: Path
    """Folder for the folders of zygotes' sockets."""

    values: Values


@dataclass
class _Kept:
    """What the app printed while it was loaded; given to the first call, or shown with the load's failure."""

    chunks: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    size: int = 0

    def add(self, stream: str, data: bytes) -> None:
        if self.size < OUTPUT_KEPT:
            data = data[: OUTPUT_KEPT - self.size]
            self.chunks.append((stream, data))
            self.size += len(data)


class Zygote:
    """One started zygote. Make it with `start_zygote`.

    Args:
        memory_mb: What loading the app may use: as much as a runner. Runners begin in the zygote's cgroup and are moved
            to their own.
        on_end: Called once when nothing of it runs any more.
    """

    def __init__(self, site: Site, name: str, memory_mb: int, on_end: Callable[[Zygote], None]) -> None:
        self.name = name
        self._memory_mb = memory_mb
        self.is_alive = True
        self._site = site
        self._group = site.limits.group(f"z-{name}", Bounds(cpus=None, memory_mb=memory_mb))
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._exits: dict[str, OnExited] = {}
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._kept = _Kept()
        self._output = OutputPipes(self._kept.add)
        self._answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._socket, self._peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._started: Zygoted | None = None
        self.door = Door(site.doors / f"door-{name}", site.relay)
        self._values_door = ValuesDoor(self.door, site.values)
        self._pidfd = -1
        self._kill_timer: asyncio.TimerHandle | None = None

    def allow(self, memory_mb: int) -> None:
        """Raise its memory limit when another function of the app may use more."""
        if memory_mb > self._memory_mb:
            self._memory_mb = memory_mb
            self._group.set(Bounds(cpus=None, memory_mb=memory_mb))

    @property
    def runners(self) -> int:
        """Runners that have not exited."""
        return len(self._exits)

    def start(
        self, interpreter: Interpreter, archive: Path, environment: Path | None = None, image: ImageSpec | None = None
    ) -> None:
        """Start the process, in an environment and with what else the image says if there is one.

        Raises:
            OSError: It cannot be started; nothing is left of this zygote.
        """
        launch = Launch(
            self.name,
            interpreter,
            self._site.tree,
            archive,
            self._peer.fileno(),
            self._output.write_ends[0],
            self._group,
            self.door.folder,
            environment,
            {} if image is None else image.variables,
            "" if image is None else image.workdir,
            {} if image is None else {place: archive / path for place, path in image.mounts.items()},
        )
        try:
            self._started = self._site.executor.start(launch)
        except OSError:
            self._close()
            raise
        self._peer.close()
        self._output.close_write_ends()
        self._pidfd = os.pidfd_open(self._started.process.pid)
        self._loop.add_reader(self._pidfd, self._process_ended)

    async def load(self, spec: StartRunner, *, preload: bool) -> dict[str, Any]:
        """Have the app loaded and return the answer's head.

        Raises:
            StartFailed: The app cannot be loaded, or loading it ended the zygote.
        """
        assert self._started is not None
        head = {"kind": "load", "protocol": RUNNER_PROTOCOL, "path": self._started.archive, "module": spec.module}
        self._send({**head, "app_variable": spec.app_variable, "preload": preload}, [])
        answer = await asyncio.shield(self._answer)
        if answer["kind"] == "load_failed":
            raise StartFailed(_load_error(answer))
        return answer

    def fork(self, spec: StartRunner, descriptors: list[int], on_exited: OnExited) -> None:
        """Fork a runner; `descriptors` are its socket, stdout and stderr, which this call takes over."""
        if not self.is_alive:
            for descriptor in descriptors:
                os.close(descriptor)
            self._loop.call_soon(on_exited, None, None, True)
            return
        self._exits[spec.runner] = on_exited
        head = {"kind": "fork", "runner": spec.runner, "function": spec.function, "qualname": spec.qualname}
        details = {"tasks": spec.tasks, "is_async": spec.is_async, "memory_mb": spec.memory_mb}
        self._send({**head, **details}, descriptors)

    def signal(self, runner: str, number: int) -> None:
        """Send a signal to a runner's whole tree; KILL is repeated until nothing of it is left."""
        self._send({"kind": "kill", "runner": runner, "signal": number}, [])

    def kill(self) -> None:
        """Kill the zygote and all runners; their `on_exited` is called when nothing of it runs any more."""
        if self._started is not None:
            self._started.kill()
            self._group.kill()

    def take_output(self) -> list[tuple[str, bytes]]:
        """Return once what was printed while the app was loaded."""
        chunks, self._kept.chunks = self._kept.chunks, []
        return chunks

    # --- inside

    def _send(self, head: dict[str, Any], descriptors: list[int]) -> None:
        if not self.is_alive:
            return
        self._unsent.append((encode_frame(head), descriptors))
        if len(self._unsent) == 1:
            self._writable()

    def _writable(self) -> None:
        while self._unsent:
            message, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._socket, [message], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._writable)
                return
            except OSError as error:
                journal.warning("zygote.unreachable", zygote=self.name, reason=str(error))
            for descriptor in descriptors:
                os.close(descriptor)
            del self._unsent[0]
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            is_open = self._read_message()
        except BlockingIOError:
            return
        if not is_open:
            self._loop.remove_reader(self._socket.fileno())
            self._kill_timer = self._loop.call_later(END_GRACE_S, self.kill)

    def _read_message(self) -> bool:
        """Act on the next message; false when there is none any more. It may come from user code: nothing is trusted.

        Raises:
            BlockingIOError: None is there yet.
        """
        try:
            data = self._socket.recv(MESSAGE_MAX)
            head = decode_frame(data)[0] if data else {}
        except BlockingIOError:
            raise
        except (OSError, FrameError):
            return False
        match head:
            case {"kind": "ready" | "load_failed"}:
                if not self._answer.done():
                    self._answer.set_result(head)
            case {
                "kind": "exited",
                "runner": str(name),
                "code": int() | None as code,
                "signal": int() | None as number,
            }:
                if on_exited := self._exits.pop(name, None):
                    on_exited(code, number, False)
            case _:
                pass
        return bool(head)

    def _process_ended(self) -> None:
        assert self._started is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._last_messages()
        code = self._started.process.wait()
        self._group.kill()
        if not self._answer.done():
            self._output.drain()
            self._answer.set_exception(StartFailed(self._death_at_load(code)))
            self._answer.exception()
        self._started.cleanup()
        self._close()

    def _last_messages(self) -> None:
        """Read the answers that came before the end."""
        with contextlib.suppress(BlockingIOError):
            while self._read_message():
                pass

    def _death_at_load(self, code: int) -> Any:
        tail = b"".join(data for _, data in self._kept.chunks)[-2000:].decode("utf-8", "replace").strip()
        if self._group.memory_kills():
            return failure("out_of_memory", "loading the app used more memory than the function has")
        found = death(code if code >= 0 else None, -code if code < 0 else None, None)
        return failure(
            "load_failed", f"loading the app ended the process: {found.message}" + (f"\n{tail}" if tail else "")
        )

    def _close(self) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._peer.close()
        self._output.close()
        self._values_door.close()
        self.door.close()
        for _, descriptors in self._unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        exits, self._exits = self._exits, {}
        for on_exited in exits.values():
            on_exited(None, None, True)
        self._site.limits.release(self._group)
        self._on_end(self)
        if not self.ended.done():
            self.ended.set_result(None)


def _load_error(answer: dict[str, Any]) -> RemoteError:
    try:
        return error_from_json(answer["error"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return failure("load_failed", "loading the app failed and the app's process did not say why")


KILL = int(signal.SIGKILL)
TERM = int(signal.SIGTERM)
