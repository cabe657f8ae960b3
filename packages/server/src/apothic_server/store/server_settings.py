"""Settings of the embedded server, all given on the command line so that no file of an older release overrides them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ALWAYS = {
    # Durability (G14.1): said aloud although these are PostgreSQL's own defaults.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_sync_retry": "off",
    # Nobody reaches it but through the socket, nobody replicates from it.
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_replication_slots": "0",
    "max_logical_replication_workers": "0",
    # A small machine that runs other people's work: little memory, no helper processes.
    "max_connections": "64",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "32MB",
    "effective_cache_size": "256MB",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_worker_processes": "2",
    # In the data folder instead of /dev/shm, where a killed server would leave its segments behind.
    "dynamic_shared_memory_type": "mmap",
    "autovacuum_max_workers": "2",
    "jit": "off",
    "random_page_cost": "1.1",
    # The log holds no statement, row or parameter: they are other people's data.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
_SINCE = {16: {"scram_iterations": "4096"}, 18: {"io_method": "sync"}}
"""Settings that exist from a major version on. `io_method`: no input/output worker processes."""

_INITDB_SINCE = {16: {"scram_iterations": "1"}}
"""Settings while the one user is made. Its password is 256 random bits: iterations would slow down nobody but us."""


def server_settings(major: int, socket_folder: Path) -> dict[str, str]:
    """Return the settings by name for a server of version `major` that listens in `socket_folder`."""
    quoted = str(socket_folder).replace('"', '""')
    return {**_ALWAYS, **_newer(_SINCE, major), "unix_socket_directories": f'"{quoted}"'}


def initdb_settings(major: int) -> dict[str, str]:
    """Return the settings by name for `initdb` of version `major`."""
    return _newer(_INITDB_SINCE, major)


def _newer(groups: Mapping[int, Mapping[str, str]], major: int) -> dict[str, str]:
    return {name: value for since, group in groups.items() if major >= since for name, value in group.items()}
