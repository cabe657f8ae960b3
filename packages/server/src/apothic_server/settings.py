"""Settings of one control-plane process, from the options of `apothic up`."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

from apothic.wire.limits import DISK_FLOOR_MB, LARGE_VALUES_GB

DEFAULT_PORT = 8400
DEFAULT_HOST = "127.0.0.1"
DEFAULT_GRACE_S = 30.0
DEFAULT_DISK_FLOOR_MB = DISK_FLOOR_MB
DEFAULT_LARGE_VALUES_GB = LARGE_VALUES_GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a start is told.

    Attributes:
        data: Folder that holds the store, blobs and secrets of this cloud; made with mode 0700.
        host: Address to listen on; a loopback address unless `behind_proxy`.
        port: Port to listen on; 0 takes a free one.
        database_url: External PostgreSQL; None runs the embedded one.
        pg_user: As root: user that runs the embedded PostgreSQL, instead of a user namespace.
        executor: Executor of the local worker; None takes the best that this machine supports.
        trust_user_code: Allow the `process` executor as root or for several orgs.
        cpus: Processors the local worker offers; None means all.
        memory_mb: MiB the local worker offers; None means most of the machine's.
        endpoint: File that tells clients of this user where the cloud is; None writes none.
        disconnect_grace_s: How long a worker on another machine may be silent before its jobs run elsewhere (G3.2).
        shared: Folder with secrets and blobs that all servers of this cloud use; the data folder when None.
        public_url: Address under which workers and other servers reach this one; that of the socket when None.
        has_worker: Run a worker beside the server.
        disk_floor_mb: Free MiB of the store's disk below which no new work is taken, and of the worker's below which
            the runner that writes most is stopped; 0 for neither.
        large_values_gb: GiB of large values that each org may keep.
        commit_delay_s: Delay before each commit of the batching writer; for benchmarks.
    """

    data: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    behind_proxy: bool = False
    database_url: str | None = None
    pg_user: str | None = None
    executor: str | None = None
    trust_user_code: bool = False
    cpus: float | None = None
    memory_mb: int | None = None
    endpoint: Path | None = None
    disconnect_grace_s: float = DEFAULT_GRACE_S
    shared: Path | None = None
    public_url: str | None = None
    has_worker: bool = True
    disk_floor_mb: int = DEFAULT_DISK_FLOOR_MB
    large_values_gb: int = DEFAULT_LARGE_VALUES_GB
    commit_delay_s: float = 0.0

    @property
    def is_sharable(self) -> bool:
        """Whether other servers may use the same database."""
        return self.database_url is not None

    @property
    def worker_name(self) -> str:
        """Name of the worker beside this server; where several servers are possible, that of no other one's."""
        if not self.is_sharable:
            return "local"
        return "local-" + hashlib.sha256(f"{socket.gethostname()}\0{self.data}".encode()).hexdigest()[:8]
