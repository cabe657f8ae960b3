"""One worker process from start to end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass

from apothic.wire.ids import new_key
from apothic.wire.link import Machine
from apothic_worker import journal
from apothic_worker.archives import Archives, http_fetch
from apothic_worker.config import Config
from apothic_worker.control_link import ControlLink, Dial
from apothic_worker.folders import Folders, empty, lock_folder, open_folders
from apothic_worker.interpreters import Interpreter, find_interpreters
from apothic_worker.limits import Limits, machine_hierarchies, sweep
from apothic_worker.link_socket import LinkRefused
from apothic_worker.link_state import LinkState
from apothic_worker.machine import choose_executor, describe
from apothic_worker.supervisor import Supervisor
from apothic_worker.tree import build_tree
from apothic_worker.zygote import Site
from apothic_worker.zygotes import Zygotes

DRAIN_S = 15.0
SETTLE_S = 2.0
LOCK_WAIT_S = 5.0


@dataclass(frozen=True)
class _Prepared:
    folders: Folders
    limits: Limits
    site: Site
    interpreters: dict[str, Interpreter]
    machine: Machine


async def run(config: Config, parent: int) -> None:
    """Work until a signal, then drain.

    Args:
        parent: Process id of the parent at the start; when it is another one at a stop, nobody waits for results.

    Raises:
        DataFolderBusy: Another worker uses the data folder.
        ExecutorUnavailable: The executor does not work on this machine.
        LinkRefused: The control plane does not want this worker.
    """
    lock = lock_folder(config.data, wait_s=LOCK_WAIT_S)
    prepared: _Prepared | None = None
    try:
        sweep(config.data / "cgroups")
        folders = open_folders(config.data)
        prepared = _prepare(config, folders)
        await _serve(config, prepared, parent)
    finally:
        if prepared is not None:
            prepared.limits.close()
            empty(prepared.folders.scratch)
        os.close(lock)


def _prepare(config: Config, folders: Folders) -> _Prepared:
    interpreters = find_interpreters()
    executor = choose_executor(config, folders, interpreters)
    tree = build_tree(folders.runtime, interpreters.values())
    limits = Limits(machine_hierarchies(), tag=f"{os.getpid()}-{secrets.token_hex(4)}", record=folders.cgroups)
    machine = describe(config, executor, limits, interpreters)
    return _Prepared(folders, limits, Site(executor, limits, tree), interpreters, machine)


async def _serve(config: Config, prepared: _Prepared, parent: int) -> None:
    def make_state(wake: Callable[[bool], None]) -> LinkState:
        name = config.name or prepared.machine.host
        return LinkState(incarnation=new_key(), name=name, machine=prepared.machine, credit=config.credits, wake=wake)

    link = ControlLink(Dial(config.url, config.token, config.is_local), make_state)
    archives = Archives(prepared.folders.archives, prepared.folders.scratch, http_fetch(config.url, config.token))
    zygotes = Zygotes(prepared.site, prepared.interpreters, archives)
    supervisor = Supervisor(zygotes, prepared.limits, link.state)
    stop, hurry = _stop_signals()
    linking = asyncio.ensure_future(link.run(supervisor))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([linking, stopping], return_when=asyncio.FIRST_COMPLETED)
        if linking.done():
            linking.result()
        await _drain(config, link, supervisor, hurry, is_orphan=config.exit_with_parent and os.getppid() != parent)
    except LinkRefused:
        hurry.set()
        await supervisor.drain(0.0, hurry)
        raise
    finally:
        stopping.cancel()
        linking.cancel()
        await asyncio.gather(linking, return_exceptions=True)


async def _drain(
    config: Config, link: ControlLink, supervisor: Supervisor, hurry: asyncio.Event, *, is_orphan: bool
) -> None:
    finish_s = 0.0 if is_orphan and config.is_local else DRAIN_S
    journal.info("worker.stops", finish_s=finish_s)
    link.state.draining(finish_s)
    await supervisor.drain(finish_s, hurry)
    await link.settle(0.0 if is_orphan else SETTLE_S)
    await link.close(1000)


def _stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return the events of the first and of the second TERM or INT."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def heard() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, heard)
    return stop, hurry
