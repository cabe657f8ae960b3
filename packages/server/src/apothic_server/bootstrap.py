"""Builds the control plane from its parts: store, dispatcher, services, loops, faces. Nothing else knows them all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from apothic.wire.ids import JobId, OrgId, new_key
from apothic_server.adapters.blobs.files import FileBlobs
from apothic_server.adapters.clock import SystemClock
from apothic_server.api.links.upgrade import link_upgrade
from apothic_server.api.root import build_face
from apothic_server.api.shared.asgi import Face
from apothic_server.identity import check_folder, claim_folder, first_org, known_org, pepper_of
from apothic_server.loops.base import Loop, Watchdog
from apothic_server.loops.retention import Retention
from apothic_server.loops.upkeep import Upkeep
from apothic_server.loops.values import Values
from apothic_server.ports.clock import Clock
from apothic_server.services.apps import Apps
from apothic_server.services.archives import Archives
from apothic_server.services.attempts import Attempts
from apothic_server.services.deployed import DeployedFunctions
from apothic_server.services.deployments import Deployments
from apothic_server.services.dispatch.board import Board
from apothic_server.services.dispatch.builds import Builds
from apothic_server.services.dispatch.calls import Calls
from apothic_server.services.dispatch.chunks import Chunks
from apothic_server.services.dispatch.closing import Closing
from apothic_server.services.dispatch.cordons import Cordons
from apothic_server.services.dispatch.crash_loops import CrashLoops
from apothic_server.services.dispatch.endings import Endings
from apothic_server.services.dispatch.grants import Grants
from apothic_server.services.dispatch.group_waits import GroupWaits
from apothic_server.services.dispatch.hints import Hints
from apothic_server.services.dispatch.items import ItemFlows
from apothic_server.services.dispatch.leases import PASS_S, Leases
from apothic_server.services.dispatch.map_upkeep import MapUpkeep
from apothic_server.services.dispatch.maps import Maps
from apothic_server.services.dispatch.reattach import Reattach
from apothic_server.services.dispatch.recovery import Recovery
from apothic_server.services.dispatch.reports import Reports
from apothic_server.services.dispatch.role import Role
from apothic_server.services.dispatch.shelves import Shelves
from apothic_server.services.dispatch.time_limits import TimeLimits
from apothic_server.services.enrolment import Enrolment
from apothic_server.services.environments import Environments
from apothic_server.services.group_items import GroupItems
from apothic_server.services.group_outcomes import GroupOutcomes
from apothic_server.services.groups import Groups
from apothic_server.services.health import Health
from apothic_server.services.item_cancels import ItemCancels
from apothic_server.services.jobs import Jobs
from apothic_server.services.keys import Keys
from apothic_server.services.links import GRACE_S, Links
from apothic_server.services.metrics import Metrics
from apothic_server.services.news import News
from apothic_server.services.offer import Services
from apothic_server.services.outcomes import Outcomes
from apothic_server.services.peers import JOIN, Peers
from apothic_server.services.repeats import Repeats
from apothic_server.services.schedules import Schedules
from apothic_server.services.stats import Stats
from apothic_server.services.streams import Streams
from apothic_server.services.turns import Turns
from apothic_server.services.values import ORG_VALUES_MAX, LargeValues
from apothic_server.services.workers import Workers
from apothic_server.store.address import StoreAddress
from apothic_server.store.database import Database
from apothic_server.store.disk import Disk
from apothic_server.store.migrate import prepare_store
from apothic_server.store.servers import Server
from apothic_server.store.writer import Writer

SWEEP_DEADLINE_S = 120.0
"""The first sweep of a term reads every unfinished row."""


def _random() -> float:
    return secrets.randbelow(1 << 30) / (1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where time, ids and randomness come from."""

    clock: Clock
    new_key: Callable[[], str] = new_key
    random: Callable[[], float] = _random


class Cloud:
    """One control-plane process without its listener: start it, serve `asgi`, stop it.

    Args:
        address: The store; prepared (checked, migrated) at start.
        data: Folder for blobs and secrets; all processes of one cloud use the same.
        url: Address under which workers and other processes reach this one.
        grace_s: `disconnect_grace_s`, the lease of a worker.
        holder: Name under which the dispatcher's term is taken; given when the caller has proof that every process that
            used it before is dead, which spares the wait for the end of their term. None makes a new one.
        disk: Decides whether there is room for new work; None takes it always.
        org_values_max: Bytes of large values that an org may keep.
    """

    def __init__(
        self,
        address: StoreAddress,
        data: Path,
        *,
        url: str,
        sources: Sources | None = None,
        commit_delay_s: float = 0.0,
        grace_s: float = GRACE_S,
        holder: str | None = None,
        disk: Disk | None = None,
        org_values_max: int = ORG_VALUES_MAX,
    ) -> None:
        self._address = address
        self._data = data
        self._url = url
        self._sources = sources or Sources(clock=SystemClock())
        self._commit_delay_s = commit_delay_s
        self._grace_s = grace_s
        self._holder = holder
        self._org_values_max = org_values_max
        self.disk = disk or Disk(data, floor_bytes=0)
        self._stack = AsyncExitStack()
        self._is_stopped = False
        self.org: OrgId
        self.asgi: Face
        self.services: Services
        self.board: Board
        self.endings: Endings
        self.links: Links
        self.keys: Keys
        self.database: Database
        self.leases: Leases
        self.maps: Maps
        self._waits: GroupWaits
        self.recovery: Recovery
        self.role: Role
        self.peers: Peers
        self.upkeep: Upkeep
        self.values: Values
        self.retention: Retention
        self.schedules: Schedules
        self.writer: Writer
        self.loops: tuple[Loop, ...] = ()

    async def start(self, *, run_loops: bool = True) -> None:
        """Prepare the store, take the dispatcher's role, read unfinished work, start the loops.

        Args:
            run_loops: False leaves the loops to a caller that steps them by hand.
        """
        await prepare_store(self._address)
        self.database = await Database.open(self._address)
        self._stack.push_async_callback(self.database.close)
        self._stack.push_async_callback(self._release_role)
        self.writer = Writer(self.database.connect_writer, commit_delay_s=self._commit_delay_s)
        await self.writer.start()
        self._stack.push_async_callback(self.writer.stop)
        check_folder(self._data, await known_org(self.database))
        pepper = pepper_of(self._data)  # before the org, so that a folder without it never belonged to the cloud
        self.org = await first_org(self.database, self._sources.clock)
        claim_folder(self._data, self.org)
        blobs, uploads = FileBlobs(self._data / "blobs"), FileBlobs(self._data / "values")
        self._build(blobs, uploads, pepper)
        await self.peers.join()
        if self.peers.is_alone:
            for store in (blobs, uploads):
                await store.sweep()  # what others upload at this moment is theirs
        await self.upkeep.role()
        role, *others = self.loops if run_loops else (None,)
        if role is not None:
            self._start(role)  # the term is renewed while the rows are read
        await self.recovery.sweep()
        for loop in others:
            self._start(loop)

    async def stop(self) -> None:
        """Take nothing new, stop the loops, write what is queued, give the role back, disconnect."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if hasattr(self, "board"):
            self.board.is_draining = True
        await self._stack.aclose()

    async def drain(self) -> None:
        """Take nothing new; when others live, one of them dispatches from now on."""
        self.board.is_draining = True
        if not self.peers.is_alone:
            await self.role.step_down()
            self.peers.tell(JOIN)

    def _start(self, loop: Loop) -> None:
        loop.start()
        self._stack.push_async_callback(loop.stop)

    async def _release_role(self) -> None:
        if hasattr(self, "role"):
            await self.role.release()
            await self.peers.leave()

    def _build(self, blobs: FileBlobs, uploads: FileBlobs, pepper: bytes) -> None:
        database, clock, key = self.database, self._sources.clock, self._sources.new_key
        board = self.board = Board(
            clock=clock, records=self.writer, new_key=key, random=self._sources.random, grace_s=self._grace_s
        )
        grants = Grants(board)
        endings = self.endings = Endings(board, grants)
        crash_loops, flows = CrashLoops(board), ItemFlows(board)
        reports = Reports(board, grants, endings, crash_loops, flows)
        calls = Calls(board, grants, endings)
        self.leases = Leases(board, self._grace_s)
        maps = self.maps = Maps(board, grants, calls)
        endings.end_chunk = Chunks(board, grants, maps).end
        map_upkeep = MapUpkeep(database, board, maps, calls, blobs)
        closing = Closing(database, board, calls, endings, grants, maps)
        waits = self._waits = GroupWaits(board, grants, maps)
        cancels = ItemCancels(database, board, maps)
        stored = (database, DeployedFunctions())
        items = GroupItems(*stored, blobs, board, waits, cancels)
        outcomes = Outcomes(database, blobs, clock, items)
        of_term = (self.leases, closing, outcomes, map_upkeep)
        self.recovery = Recovery(database, board, grants, calls, endings, reports, *of_term, grace_s=self._grace_s)
        me = Server(self._holder or key(), self._url)
        self.role = Role(database, board, outcomes, me)
        self.role.lost = lambda: _forget_fleet(grants, reports, maps)
        self.peers = Peers(database, clock, me)
        reattach = Reattach(board, grants, calls, reports, self.recovery)
        self.keys = Keys(database, clock, pepper=pepper, new_key=key)
        attempts = Attempts(database, board, self.keys, pepper=pepper)
        builds = self.builds = Builds(database, board, grants, lambda stream: board.hints.changed(stream))
        shelves = Shelves(board)
        self.links = Links(
            database,
            board,
            grants,
            reports,
            reattach,
            attempts,
            builds,
            shelves,
            servers=lambda: self.peers.urls,
            grace_s=self._grace_s,
        )
        disk = self.disk
        apps = Apps(
            database,
            clock,
            disk,
            new_key=key,
            changed=lambda stream: board.hints.changed(stream),
            is_alone=lambda: self.peers.is_alone,
            grace_s=self._grace_s,
        )
        deployments = Deployments(database, clock, closing, apps, changed=lambda stream: board.hints.changed(stream))
        large = self.large_values = LargeValues(database, uploads, clock, disk, org_bytes_max=self._org_values_max)
        jobs = Jobs(*stored, board, calls, apps, blobs, Repeats(database), outcomes, items, disk, large, new_key=key)
        group_outcomes = GroupOutcomes(database, blobs, clock)
        groups = Groups(*stored, board, maps, waits, calls, apps, blobs, group_outcomes, disk, cancels, new_key=key)
        streams = Streams(database, jobs, blobs, flows, Turns(clock), groups, items)
        self.schedules = Schedules(database, board, jobs, disk, new_key=key)
        self.retention = Retention(database, clock)
        health, cordons = Health(database, board, disk), Cordons(database, board, grants)
        self.services = Services(
            keys=self.keys,
            attempts=attempts,
            apps=apps,
            deployments=deployments,
            archives=Archives(database, blobs, clock, disk),
            values=large,
            jobs=jobs,
            groups=groups,
            stats=Stats(database, clock),
            streams=streams,
            environments=Environments(database, apps, board, grants, shelves),
            schedules=self.schedules,
            workers=Workers(database, board, cordons, self.keys),
            enrolment=Enrolment(database, clock, pepper=pepper, new_key=key),
            health=health,
            metrics=Metrics(board, maps, self.writer.counters, disk),
        )
        self.peers.listeners.regrouped = lambda: _regroup(apps, self.links)
        time_limits = TimeLimits(board, grants, calls, endings, crash_loops)
        self.upkeep = Upkeep(
            board, grants, self.recovery, time_limits, crash_loops, flows, self.role, self.peers, cordons
        )
        self.values = Values(board, grants, reports, blobs, large, map_upkeep)
        self.loops = self._make_loops(board, streams, outcomes, calls, map_upkeep)
        health.loops = self.loops
        self.asgi = build_face(
            self.services,
            link_upgrade(self.links),
            make_request_id=key,
            log=structlog.get_logger("apothic.request"),
        )

    def _make_loops(
        self, board: Board, streams: Streams, outcomes: Outcomes, calls: Calls, map_upkeep: MapUpkeep
    ) -> tuple[Loop, ...]:
        upkeep, peers = self.upkeep, self.peers
        role = Loop("role", upkeep.role, interval_s=1.5, deadline_s=5.0)
        sweep = Loop("sweep", upkeep.sweep, interval_s=PASS_S, deadline_s=SWEEP_DEADLINE_S)
        values = Loop("values", self.values.step, interval_s=5.0, deadline_s=60.0)
        reload = Loop("reload", upkeep.reload, interval_s=1.0)
        retries = Loop("retries", upkeep.retries, interval_s=5.0)
        limits = Loop("limits", upkeep.limits, interval_s=2.0)
        builds = Loop("builds", self.builds.step, interval_s=5.0)
        maps = Loop("maps", map_upkeep.step, interval_s=1.0)
        told = Loop("peers", upkeep.tell, interval_s=1.0)
        waited = Loop("outcomes", outcomes.step, interval_s=5.0)
        news = News(board, streams, outcomes, self.maps)
        news.missed = sweep.hint
        board.hints = Hints(
            feed=values.hint,
            reload=reload.hint,
            retries=retries.hint,
            limits=limits.hint,
            builds=builds.hint,
            changed=lambda key: _changed(streams, outcomes, peers, key),
            maps=maps.hint,
            knot=self._waits.knot,
            orphaned=calls.cancel_orphans,
        )
        outcomes.wake = waited.hint
        peers.listeners.heard, peers.listeners.wake, peers.listeners.met = news.heard, told.hint, role.hint
        self.role.taken = lambda: _begin_term(self.recovery, sweep)
        return _watched(
            role,
            limits,
            sweep,
            Loop("idle runners", upkeep.idle_runners, interval_s=5.0),
            Loop("schedules", self.schedules.step, interval_s=1.0),
            Loop("retention", self.retention.step, interval_s=60.0),
            Loop("large values", self.large_values.step, interval_s=600.0),
            reload,
            retries,
            values,
            builds,
            maps,
            told,
            waited,
            Loop("disk", self.disk.step, interval_s=1.0),
        )


def _watched(*loops: Loop) -> tuple[Loop, ...]:
    return (*loops, Loop("watchdog", Watchdog(loops).step, interval_s=1.0))


def _changed(streams: Streams, outcomes: Outcomes, peers: Peers, key: str) -> None:
    """Something was committed here: wake our own watchers, tell the other processes."""
    streams.hint(key)
    outcomes.hint(JobId(key))
    peers.tell(key)


def _regroup(apps: Apps, links: Links) -> None:
    """Other servers came or went."""
    apps.forget_all()
    links.tell_servers()


def _forget_fleet(grants: Grants, reports: Reports, maps: Maps) -> None:
    maps.clear()
    grants.clear()
    reports.large_results.clear()


def _begin_term(recovery: Recovery, sweep: Loop) -> None:
    recovery.begin_term()
    sweep.hint()
