"""One running cloud: embedded store, control plane, listener and local worker, started and stopped in order."""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from apothic_server import endpoint, identity
from apothic_server.api.local.handover import Handover
from apothic_server.bootstrap import Cloud
from apothic_server.domain.errors import PlatformError, Unavailable
from apothic_server.listener import Listener, url_of
from apothic_server.local_store import LocalStore
from apothic_server.local_worker import LocalWorker
from apothic_server.settings import Settings
from apothic_server.store.disk import MIB, Disk

EMBEDDED_HOLDER = "local"
GIB = 1024 * MIB


class WorkerFailed(PlatformError):
    """The local worker does not start; the sentence holds what it said."""

    code = "worker_failed"


@dataclass(frozen=True, slots=True)
class Running:
    """What a start tells.

    Attributes:
        machine: One line about the local worker: executor, isolation, size, limits.
        is_named: The endpoint file names this cloud, so that clients of this user find it.
        store: Says when the cloud has to stop because its database does not stay up.
        disk: Says whether there is room for new work.
    """

    url: str
    key: str
    machine: str
    is_named: bool
    store: LocalStore
    disk: Disk


@asynccontextmanager
async def running(settings: Settings, bound: socket.socket) -> AsyncGenerator[Running]:
    """Run a cloud in `settings.data` until the block ends. The folder's lock is the caller's.

    Raises:
        PlatformError: It cannot start; everything that was started is stopped again.
    """
    url = settings.public_url or url_of(bound)
    shared = settings.shared or settings.data
    async with AsyncExitStack() as stack:
        disk = _disk(settings)
        store = LocalStore(settings, disk)
        address = await store.start()
        stack.push_async_callback(store.stop)
        # Only holders of the folder's lock use its embedded store, so the one before us is dead.
        holder = None if settings.is_sharable else EMBEDDED_HOLDER
        cloud = Cloud(
            address,
            shared,
            url=url,
            commit_delay_s=settings.commit_delay_s,
            grace_s=settings.disconnect_grace_s,
            holder=holder,
            disk=disk,
            org_values_max=settings.large_values_gb * GIB,
        )
        stack.push_async_callback(cloud.stop)
        await cloud.start()
        key = await identity.local_key(shared, cloud.keys, cloud.org)
        listener = Listener(cloud.asgi, bound)
        listener.start()
        stack.push_async_callback(listener.stop)
        handover = Handover(settings.data, cloud.services)
        handover.start()
        stack.push_async_callback(handover.stop)
        machine = "none beside this server"
        if settings.has_worker:
            machine = await _worker(settings, url_of(bound), cloud, stack)
        path = settings.endpoint
        is_named = path is not None and stack.enter_context(endpoint.written(path, url, key, handover.path))
        yield Running(url, key, machine, is_named, store, disk)
        await cloud.drain()


def _disk(settings: Settings) -> Disk:
    """Return the disk to watch: that of the embedded database, else the one with the large values."""
    is_embedded = settings.database_url is None
    folder = settings.data if is_embedded else settings.shared or settings.data
    ballast = settings.data / "ballast" if is_embedded else None
    return Disk(folder, floor_bytes=settings.disk_floor_mb * MIB, ballast=ballast)


async def _worker(settings: Settings, url: str, cloud: Cloud, stack: AsyncExitStack) -> str:
    """Start the worker beside this server and return a line about it."""
    token, name = await identity.worker_token(settings.data, cloud.keys, cloud.org), settings.worker_name
    worker = LocalWorker(
        settings,
        url=url,
        token=token,
        linked=cloud.links.linked(name),
        on_death=functools.partial(cloud.links.declare_dead, name),
    )
    stack.push_async_callback(worker.stop)
    if not await worker.start():
        raise WorkerFailed(f"the local worker did not start: {worker.why_failed()}")
    return _machine(cloud, name)


def _machine(cloud: Cloud, name: str) -> str:
    worker = next((worker for worker in cloud.board.fleet.workers.values() if worker.name == name), None)
    if worker is None and not cloud.board.dispatches:
        return f"{name}, linked to the server that dispatches"
    if worker is None:
        raise Unavailable("the local worker is gone")
    machine = worker.machine
    isolation = ", ".join(machine.isolation) or "no namespaces"
    enforced = ", ".join(machine.enforced) or "none"
    loose = "".join(f"; {name} not enforced: {why}" for name, why in machine.not_enforced.items())
    size = f"{machine.cpus:g} cpu, {machine.memory_mb} MiB"
    return f"{machine.executor} ({isolation}), {size}, limits enforced: {enforced}{loose}"
