"""One worker process from start to end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apothic.wire.ids import new_key
from apothic.wire.link import Machine
from apothic_worker import journal
from apothic_worker.archives import Archives, http_fetch
from apothic_worker.config import Config, ConfigError
from apothic_worker.control_link import ControlLink, Dial
from apothic_worker.disk import MIB, DiskWatch
from apothic_worker.executors.base import Executor
from apothic_worker.folders import RECORD, Folders, empty, lock_folder, open_folders, record, unrecord
from apothic_worker.forerunners import known_dead, place_of
from apothic_worker.handover import Handover
from apothic_worker.images import Environments
from apothic_worker.interpreters import Interpreter, find_interpreters
from apothic_worker.lease import is_abandoned
from apothic_worker.limits import Limits, machine_hierarchies, sweep
from apothic_worker.link_socket import LinkRefused, LinkUnavailable
from apothic_worker.link_state import Haste, LinkState
from apothic_worker.machine import choose_executor, describe
from apothic_worker.relay import Relay
from apothic_worker.supervisor import Supervisor
from apothic_worker.survivors import end_survivors
from apothic_worker.tidying import Tidying
from apothic_worker.transfers import Transfers
from apothic_worker.tree import build_tree
from apothic_worker.values import Values
from apothic_worker.zygote import Site
from apothic_worker.zygotes import Zygotes

DRAIN_S = 15.0
SETTLE_S = 2.0
LOCK_WAIT_S = 5.0
LOOK_S = 1.0


@dataclass(frozen=True)
class _Prepared:
    folders: Folders
    limits: Limits
    executor: Executor
    tree: Path
    interpreters: dict[str, Interpreter]
    machine: Machine


def check_executor(config: Config) -> None:
    """Check that the executor works on this machine. Call with the data folder's lock held.

    Raises:
        ExecutorUnavailable: It does not.
    """
    choose_executor(config, open_folders(config.data), find_interpreters())


async def run(config: Config) -> None:
    """Work until a signal, then drain. With `is_local` also until no server is there any more and nothing is held.

    Raises:
        DataFolderBusy: Another worker uses the data folder.
        ExecutorUnavailable: The executor does not work on this machine.
        LinkRefused: The control plane does not want this worker.
    """
    lock = lock_folder(config.data, wait_s=LOCK_WAIT_S)
    prepared: _Prepared | None = None
    incarnation, place = new_key(), place_of(lock)
    try:
        dead = known_dead(config.data, place, is_swept=sweep(config.data / "cgroups"))
        record(config.data, incarnation, boot=place.boot, lock=place.lock, forerunners=dead)
        end_survivors(config.data / "scratch")
        folders = open_folders(config.data)
        prepared = _prepare(config, folders)
        await _serve(config, prepared, incarnation, dead)
    finally:
        if prepared is not None:
            prepared.limits.close()
            end_survivors(prepared.folders.scratch)
            empty(prepared.folders.scratch)
        unrecord(config.data)
        os.close(lock)


def clean(data: Path) -> None:
    """Remove what a worker that was killed left in its data folder and in the cgroups, with every process there.

    Raises:
        DataFolderBusy: A worker uses the folder.
    """
    lock = lock_folder(data, wait_s=LOCK_WAIT_S)
    try:
        sweep(data / "cgroups")
        end_survivors(data / "scratch")
        if (data / "scratch").is_dir():
            empty(data / "scratch")
        unrecord(data)
    finally:
        os.close(lock)


def _prepare(config: Config, folders: Folders) -> _Prepared:
    interpreters = find_interpreters()
    executor = choose_executor(config, folders, interpreters)
    tree = build_tree(folders.runtime, interpreters.values())
    limits = Limits(machine_hierarchies(), tag=f"{os.getpid()}-{secrets.token_hex(4)}", record=folders.cgroups)
    machine = describe(config, executor, limits, interpreters)
    if machine.cpus < (os.cpu_count() or 1):
        limits.cap(machine.cpus)
    return _Prepared(folders, limits, executor, tree, interpreters, machine)


async def _serve(config: Config, prepared: _Prepared, incarnation: str, forerunners: list[str]) -> None:
    def make_state(wake: Callable[[Haste], None]) -> LinkState:
        name = config.name or prepared.machine.host
        return LinkState(
            incarnation=incarnation,
            name=name,
            machine=prepared.machine,
            credit=config.credits,
            wake=wake,
            forerunners=forerunners,
        )

    link = ControlLink(_dial(config), make_state)
    archives = Archives(prepared.folders.archives, prepared.folders.scratch, http_fetch(lambda: _linked(config, link)))
    relay, scratch = Relay(link.control_plane), prepared.folders.scratch
    handover = Handover(config.values_socket, relay)
    values = Values(scratch, Transfers(relay), handover, floor_bytes=config.disk_floor_mb * MIB)
    site = Site(prepared.executor, prepared.limits, prepared.tree, relay, scratch, values)
    environments = Environments(prepared.folders.environments, prepared.folders.scratch, prepared.interpreters)
    zygotes = Zygotes(site, prepared.interpreters, archives, environments)
    supervisor = Supervisor(zygotes, environments, prepared.limits, link.state)
    stop, hurry = _stop_signals()
    linking = asyncio.ensure_future(link.run(supervisor))
    reasons = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(_abandoned(config, link))]
    tidying = asyncio.ensure_future(Tidying(prepared.limits, prepared.folders.scratch, lambda: zygotes.names).run())
    watch = DiskWatch(config.data, config.disk_floor_mb * MIB, supervisor)
    watching = asyncio.ensure_future(watch.run())
    try:
        await asyncio.wait([linking, *reasons], return_when=asyncio.FIRST_COMPLETED)
        if linking.done():
            linking.result()
        await _drain(link, supervisor, hurry, is_orphan=config.is_local and link.is_away)
    except LinkRefused:
        hurry.set()
        await supervisor.drain(0.0, hurry)
        raise
    finally:
        for waiting in (linking, tidying, watching, *reasons):
            waiting.cancel()
        await asyncio.gather(linking, return_exceptions=True)
        await environments.close()


def _dial(config: Config) -> Dial:
    return Dial(lambda: _where(config), config.is_local, config.is_leased, config.more_urls, config.follows)


def _linked(config: Config, link: ControlLink) -> tuple[str, str]:
    """Return the address of the server that welcomed last, and the token."""
    url, token = config.where()
    return link.addresses.linked or url, token


def _where(config: Config) -> tuple[str, str]:
    try:
        return config.where()
    except ConfigError as error:
        raise LinkUnavailable(str(error)) from error


async def _abandoned(config: Config, link: ControlLink) -> None:
    """Return when the server on this host does not come back and nothing here waits for it; else never.

    Without its record nobody can find this process any more: the folder was removed.
    """
    if not config.is_local:
        await asyncio.Event().wait()
    state = link.state
    while True:
        await asyncio.sleep(min(LOOK_S, config.alone_s))
        is_lost = link.is_away and not (config.data / RECORD).exists()
        if is_lost or is_abandoned(
            link.away_s, executes=state.executes, owes=state.has_unsettled, alone_s=config.alone_s
        ):
            journal.warning("worker.alone", away_s=round(link.away_s))
            return


async def _drain(link: ControlLink, supervisor: Supervisor, hurry: asyncio.Event, *, is_orphan: bool) -> None:
    """End; `is_orphan` when no server is there to take a result."""
    finish_s = 0.0 if is_orphan else DRAIN_S
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
