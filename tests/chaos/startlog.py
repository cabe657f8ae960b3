"""What user code says of itself: when it began and when it was done, over a socket of the harness.

The socket lies in the abstract namespace, so that no folder has to be shared with the sandbox, and a connection ends
with its process, however that dies. The kernel tells which process is at the other end.
"""

import asyncio
import os
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from .checker import Execution


class StartLog:
    """Listens to user code.

    Attributes:
        address: Name of the socket, without its leading zero byte.
        finished: Runs that came to their end.
    """

    def __init__(self, address):
        self.address = address
        self.done = []
        self.began = {}
        self.finished = 0
        self._open = {}
        self._peers = Counter()
        self._server = None
        self._readers = set()

    async def start(self):
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, path=f"\0{self.address}")

    async def stop(self):
        """Hear no more."""
        self._server.close()
        for task in list(self._readers):
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    @property
    def running(self):
        """Process ids of user code that is in the middle of a call now."""
        return sorted({pid for runs in self._open.values() for pid, _ in runs})

    @property
    def connected(self):
        """Process ids of user code that is, or was a moment ago, in the middle of a call."""
        return sorted(self._peers)

    def executions(self):
        """Return all runs, those that go on with no end."""
        alive = [
            Execution(token=token, pid=pid, began=began) for token, runs in self._open.items() for pid, began in runs
        ]
        return [*self.done, *alive]

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._readers.add(task)
        pid = _peer(writer.get_extra_info("socket"))
        self._peers[pid] += 1
        try:
            while line := await reader.readline():
                verb, token = line.decode().split()
                if verb == "start":
                    self._start(token, pid)
                    writer.write(b"%d\n" % self.began[token])
                else:
                    self._end(token, pid, has_finished=verb == "end")
                    writer.write(b"ok\n")
        except (ConnectionError, asyncio.CancelledError):
            pass  # the process is gone, or the harness stops
        finally:
            for token in [token for token, runs in self._open.items() if any(one == pid for one, _ in runs)]:
                self._end(token, pid, has_finished=False)
            self._peers[pid] -= 1
            self._peers += Counter()  # without those that left
            writer.close()
            self._readers.discard(task)

    def _start(self, token, pid):
        for other, _ in list(self._open.get(token, ())):
            if other != pid and not is_alive(other):
                self._end(token, other, has_finished=False)  # its last word is still on the way to us
        self.began[token] = self.began.get(token, 0) + 1
        self._open.setdefault(token, []).append((pid, time.monotonic()))

    def _end(self, token, pid, *, has_finished):
        runs = self._open.get(token, [])
        found = next((run for run in runs if run[0] == pid), None)
        if found is None:
            return
        runs.remove(found)
        if not runs:
            del self._open[token]
        ended = time.monotonic()
        self.finished += has_finished
        self.done.append(Execution(token=token, pid=pid, began=found[1], ended=ended, has_finished=has_finished))


def is_alive(pid):
    """Whether a process lives; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _peer(connection):
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", raw)[0]


def make_address(seed):
    """Return a name that no other run has."""
    return f"apothic-chaos-{os.getpid()}-{seed}"
