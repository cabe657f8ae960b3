"""One run of maps from start to end: as any other run, with items of maps as its work and single calls beside them."""

import time
from collections import Counter
from pathlib import Path

from ..checker import Violation, attempts_are_dense, readers_saw_the_stream, rows_are_whole, streams_are_dense
from ..history import HistoryFile
from ..load import Load
from ..plan import KILLS, NETWORK, Plan, make_plan
from ..run import NOTICED_S, Run
from . import work
from .checker import Judge, Met
from .load import MapsLoad
from .stored import count_unfinished, open_groups, read_world

APP = Path(__file__).with_name("app.py")
AT_ONCE = 5
OWN_CPUS = 4.0
SMALL_LIFE_S = 3.0
LATE_S = 5.0
"""Until others have noticed that something died, and it stands again."""

ALL_HIT = ("server", "restart", "database", "freeze-server")
ON_MACHINES = ("worker", "own-worker", "drain", "freeze-worker", "delay", "lose", "cut", "hang", "deaf", "mute")
MAPS_KILLS = (*KILLS, "own-worker")
OTHERS = ("restart", "freeze-server", "freeze-worker", "drain", *NETWORK)
PLACES = (*MAPS_KILLS * 40, *OTHERS * 3)
"""200 kills, and three of everything else."""

FAULTS = len(PLACES)
MAPS = 2 * len(work.SHAPES)
"""Of every shape two at least."""

TITLE = "maps under kills, cuts, freezes, drains and restarts"
ITEMS, LIFE_S = 10_000, 25.0
QUIET_ITEMS, STEP_ITEMS = 5_000, 250
BUDGET_S = 660.0
PATIENCE_S = BUDGET_S + 240.0
"""For a map and its clients: I2 says that it ends once the faults are over, and it may have begun with the first."""

RATE_MIN = 300.0
"""Items a second before the first fault, on a machine that is otherwise quiet."""


class MapsRun(Run):
    """One run of maps.

    Args:
        items: Of each map.
        maps: How many at least.
        life_s: About how long a map lasts; kills of its clients fall into that time.
    """

    def __init__(self, plan, folder, *, items=ITEMS, maps=MAPS, life_s=LIFE_S, at_once=AT_ONCE, is_spread=True, **more):
        self._maps = {"items": items, "life_s": life_s}
        self._count = maps
        self._world = None
        self._offset_s = time.time() - time.monotonic()
        self.told = HistoryFile(folder / "maps.jsonl")
        more = {"rate_min": RATE_MIN, "patience_s": PATIENCE_S, "own_cpus": OWN_CPUS, **more}
        super().__init__(plan, folder, is_spread=is_spread, at_once=at_once, **more)

    def _make_load(self, *, rate, at_once, patience_s, **singles):
        self.singles = Load(
            self._api,
            self.history,
            Plan(self.plan.seed, 0, 0, ()),
            rate=rate,
            at_once=40,
            patience_s=patience_s,
            **singles,
        )
        return MapsLoad(
            self._api,
            self.singles,
            self.startlog,
            self.told,
            self.plan,
            work.specs(self.plan.random("specs"), **self._maps),
            folder=self.folder,
            environment=self._environment,
            count=self._count,
            at_once=at_once,
            patience_s=patience_s,
        )

    def _environment(self):
        url = f"http://127.0.0.1:{self.clients.port}"
        return {**self.cloud.environment, "APOTHIC_BASE_URL": url, "APOTHIC_API_KEY": self.cloud.key}

    async def _deploy(self):
        await super()._deploy()
        await self.cloud.deploy(APP.read_text().replace("@ADDRESS@", self.startlog.address), "maps_app")

    def _close(self):
        super()._close()
        self.told.close()

    async def _settle(self):
        for group in await open_groups(self.cloud.address()):  # whose client gave up: nobody sends more, or cancels it
            await self.load.cancel_group(group)
        await super()._settle()

    async def _is_settled(self):
        return not await count_unfinished(self.cloud.address())

    async def _read(self):
        self._world = await read_world(self.cloud.address())
        return await super()._read()

    # --- judgement

    def _report(self, stored, host):
        report = super()._report(stored, host)
        judge = self._judge_maps()
        report.jobs, report.unit = self.singles.accepted, "items"
        report.extra = [*self.load.said(), *self._words(judge), *report.extra]
        report.violations += [*judge.judged(), *self._stuck(), *self._streams()]
        report.thin += self._thin(judge)
        return report

    def _judge_maps(self):
        faults = [met for fault in self.faults.done if (met := self._met(fault)) is not None]
        executions = self.startlog.executions()
        return Judge(self._world, self.load.maps, self.told.history, executions, faults, self._offset_s)

    def _met(self, fault):
        if fault.place == "user":
            pids = frozenset({fault.target})
        elif fault.place in ON_MACHINES:
            pids = frozenset(fault.near)
        elif fault.place in ALL_HIT:
            pids = None
        else:
            return None
        is_freeze = fault.place.startswith("freeze")
        late_s = NOTICED_S if is_freeze else LATE_S
        return Met(at=fault.at, ended=fault.ended + late_s, pids=pids, place=fault.place, is_freeze=is_freeze)

    def _spared(self):
        """Also items that fail, maps of which something is cancelled, and runs that the next fault ended at once."""
        deaths = [
            (fault.at, frozenset((fault.target,) if fault.place == "user" else fault.near))
            for fault in self.faults.done
            if fault.place in MAPS_KILLS
        ]
        spared = set(super()._spared())
        for run in (one for one in self.startlog.executions() if not one.has_finished):
            mapped = self._mapped(run.token)
            if mapped is not None and (mapped.cancel or mapped.stop_after or mapped.fails or mapped.flaky):
                spared.add(run.token)
            if any(run.pid in pids and at <= (run.ended or at) <= at + LATE_S for at, pids in deaths):
                spared.add(run.token)
        return frozenset(spared)

    def _mapped(self, token):
        tag, dash, _ = token.partition("-")
        mapped = self.load.maps.get(int(tag)) if dash and tag.isdigit() else None
        return None if mapped is None else mapped.spec

    def _stuck(self):
        for tag in self.load.stuck:
            yield Violation("I2", f"map {tag}", "its clients did not come to an end")

    def _streams(self):
        """Streams of groups and of items with rows of their own are like those of any job (I1, I3, I5)."""
        items, groups = self._world.items, {group.id: group.stream for group in self._world.groups}
        return [
            *rows_are_whole(items),
            *attempts_are_dense(items),
            *streams_are_dense(items),
            *streams_are_dense(groups, first="group.created"),
            *readers_saw_the_stream(self.told.history, groups),
        ]

    def _thin(self, judge):
        """Say of what there was too little to prove anything."""
        hit = {fault.place for fault in self.faults.done if fault.has_hit}
        if missing := sorted({planned.place for planned in self.plan.faults} - hit):
            yield f"no {', '.join(missing)} hit anything"
        ended = {mapped.shape for mapped in self.load.maps.values() if mapped.told is not None}
        if missing := [shape.name for shape in work.SHAPES if shape.name not in ended]:
            yield f"no map {', '.join(missing)} came to its end"
        kills = sum(mapped.kills for mapped in self.load.maps.values())
        if kills < len(self.load.maps) // len(work.SHAPES):
            yield f"{kills} clients of {len(self.load.maps)} maps were killed"
        if not any(group.status == "cancelled" for group in self._world.groups):
            yield "no map was cancelled before its end"
        items = sum(map(len, judge.outcomes.values()))
        if items < self._count * self._maps["items"] // 2:
            yield f"{items} items in {len(self.load.maps)} maps"
        if self.singles.accepted < len(self.faults.done):
            yield f"{self.singles.accepted} single calls beside {len(self.faults.done)} faults"

    def _words(self, judge):
        groups = self._world.groups
        statuses = Counter(outcome.status for all_ in judge.outcomes.values() for outcome in all_)
        rows = [row for group in groups for row in group.rows]
        chunks = [row for row in rows if row.items is not None]
        told = ", ".join(f"{count} {name}" for name, count in sorted(statuses.items()))
        yield f"items      {sum(statuses.values())} in {len(groups)} groups; {told}"
        yield f"rows       {len(chunks)} of chunks, {len(rows) - len(chunks)} of single items"
        yield f"again      {judge.reruns()} items ran to their end more than once, each in flight at a fault"
        told = self.told.history
        yield f"cancels    {len(told.asked)} asked for; {len(told.reads)} readings of the events of groups"


def small_maps_run(plan, folder, *, items, **more):
    """Return a run of one map of each shape, all at once, on the worker beside the server, with any plan."""
    maps = len(work.SHAPES)
    return MapsRun(plan, folder, items=items, maps=maps, at_once=maps, life_s=SMALL_LIFE_S, is_spread=False, **more)


def make_maps_run(seed, folder, *, faults=FAULTS, items=ITEMS, plant="", rate_min=RATE_MIN):
    """Return the run of a shard, or a smaller one: with fewer faults, or fewer items in each map."""
    scale = items / ITEMS
    quiet, step = round(QUIET_ITEMS * scale), round(STEP_ITEMS * scale)
    places = PLACES if faults >= len(PLACES) else (*OTHERS, *MAPS_KILLS * faults)[: max(faults, 1)]
    plan = make_plan(seed, jobs=quiet + faults * step, faults=faults, places=places, quiet_jobs=quiet)
    environment = {"CHAOS_PLANT": plant} if plant else {}
    more = {"rate_min": rate_min, "environment": environment, "budget_s": BUDGET_S}
    maps = max(1, 2 * faults // len(PLACES)) * len(work.SHAPES)
    return MapsRun(plan, folder, items=items, maps=maps, life_s=max(3.0, LIFE_S * scale), title=TITLE, **more)
