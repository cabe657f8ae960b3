"""One run from start to end: a real cloud, load, faults, quiescence, judgement."""

import asyncio
import math
import subprocess
import time
from collections import Counter
from pathlib import Path

from . import checker
from .cloudrun import ROOT, CloudFailed, CloudRun
from .faultproxy import FaultProxy
from .faults import Faults
from .growth import Growth
from .history import HistoryFile
from .host import Host
from .load import EXPECTED, PATIENCE_S, Load
from .plan import PARTITIONS, short_s
from .remote import NAMES, RemoteWorker
from .report import OPERATIONS_PER_S_MIN, Report
from .startlog import StartLog, make_address
from .stored import read_store
from .wire import Api

EXPLAINED = frozenset(
    {
        "store.died",
        "worker.failed",
        "link.broken",
        "lease.lost",
        "writer.connection_lost",
        "loop.failed",
        "worker.exited",
        "request.cut",
        "Failed to restore the pool connection floor; retrying",
    }
)
"""Events of our logs whose level or exception the faults of a run explain."""

APP = Path(__file__).with_name("chaos_app.py")
SETTLE_S = 60.0
NOTICED_S = 5.0
LINKED_S = 60.0


NOWHERE = "http://127.0.0.1:9"
"""What the server tells its workers as its address: they have no way but their own."""

FAILING = frozenset({"flaky", "fails"})


class Run:
    """One run of one plan in one folder.

    Args:
        rate: Calls a second at most.
        is_spread: The work is done by workers of other machines, each with a way of its own that can be broken; the
            clients have one, too.
        kinds: What clients do, each with its weight; None for the usual.
        long_s: From and to, how many seconds a call of `long` lasts.
        patience_s: A job that has not ended so long after it was accepted is stuck.
        own_cpus: What the worker beside the server offers when the work is spread.
        budget_s: No fault begins later than so long after the first.
    """

    def __init__(
        self,
        plan,
        folder,
        *,
        title,
        rate=120.0,
        at_once=40,
        rate_min=OPERATIONS_PER_S_MIN,
        is_spread=False,
        environment=None,
        patience_s=PATIENCE_S,
        kinds=None,
        long_s=(0.0, 0.0),
        own_cpus=0.1,
        budget_s=math.inf,
    ):
        self.plan = plan
        self.folder = folder
        spread = {"options": ("--disconnect-grace-s", str(plan.grace_s), "--public-url", NOWHERE), "cpus": own_cpus}
        self.cloud = CloudRun(folder, environment=environment, **(spread if is_spread else {}))
        self.startlog = StartLog(make_address(plan.seed))
        self.history = HistoryFile(folder / "history.jsonl")
        self.clients = FaultProxy(self.cloud.port, plan.random("clients"))
        self.workers = [RemoteWorker(self.cloud, name, plan.random(name)) for name in NAMES] if is_spread else []
        self.cloud.worker_folders += [worker.data for worker in self.workers]
        patience = {"patience_s": patience_s, "kinds": kinds, "long_s": long_s}
        self.load = self._make_load(rate=rate, at_once=at_once, **patience)
        self.faults = Faults(
            self.cloud,
            self.startlog,
            self.load,
            plan,
            log=folder / "faults.jsonl",
            workers=self.workers,
            clients=self.clients,
            budget_s=budget_s,
        )
        self.growth = Growth()
        self._title = title
        self._settle_s = min(SETTLE_S, patience_s)
        self._rate_min = rate_min
        self._began = time.monotonic()

    async def run(self):
        """Return the report; nothing of the cloud is left, whatever happened."""
        await self.startlog.start()
        await self.clients.start()
        try:
            host = Host(self.cloud)
            await self.cloud.start()
            for worker in self.workers:
                await worker.start()
                await self._is_linked(worker.name)
            await self._deploy()
            await self._strain(host)
            stored = await self._read()
            host.look()
            for worker in self.workers:
                await worker.stop()
            await self.cloud.stop()
            return self._report(stored, host)
        finally:
            for worker in self.workers:
                worker.abandon()
            self.cloud.sweep()
            await self.clients.stop()
            await self.startlog.stop()
            self._close()

    def _make_load(self, **work):
        return Load(self._api, self.history, self.plan, **work)

    def _close(self):
        self.history.close()

    async def _deploy(self):
        await self.cloud.deploy(APP.read_text().replace("@ADDRESS@", self.startlog.address))

    async def _read(self):
        """Return all single calls that the store holds."""
        return await read_store(self.cloud.address())

    def _api(self):
        return Api("127.0.0.1", self.clients.port, self.cloud.key)

    async def _is_linked(self, name):
        deadline = time.monotonic() + LINKED_S
        while time.monotonic() < deadline:
            listed = (await self.cloud.api.ask("GET", "/v1/workers")).json["items"]
            if any(worker["name"] == name and worker["status"] == "live" for worker in listed):
                return
            await asyncio.sleep(0.05)
        raise CloudFailed(f"worker {name} is not linked after {LINKED_S:g} s")

    async def _strain(self, host):
        async with asyncio.TaskGroup() as group:
            load = group.create_task(self.load.run())
            group.create_task(self._watch(load, host))
            await self.faults.run()
        await self.cloud.ready()
        await self._settle()

    async def _watch(self, load, host):
        while not load.done():
            host.look()
            local = {} if self.workers else {"worker": self.cloud.worker() or 0}
            self.growth.look({"server": self.cloud.server, **local, **{one.name: one.pid for one in self.workers}})
            await asyncio.wait([load], timeout=1.0)

    async def _settle(self):
        """Wait until no job is left: those whose callers never heard of them, too."""
        deadline = time.monotonic() + self._settle_s
        while time.monotonic() < deadline:
            if await self._is_settled() and not self.startlog.running:
                return
            await asyncio.sleep(0.2)

    async def _is_settled(self):
        return not checker.nothing_is_stuck(await self._read())

    def _report(self, stored, host):
        executions = self.startlog.executions()
        history = self.history.history
        grown, lines = self.growth.judge()
        report = Report(
            title=self._title,
            seed=self.plan.seed,
            commit=commit(),
            jobs=self.load.accepted,
            planned=len(self.plan.faults),
            faults=self.faults.done,
            quiet_rate=self.plan.quiet_jobs / self.load.quiet_s if self.load.quiet_s else 0.0,
            rate_min=self._rate_min,
            took_s=time.monotonic() - self._began,
            statuses=Counter(job.status for job in stored.values()),
            attempts=sum(job.attempt for job in stored.values()),
            executions=len(executions),
            unanswered=len(history.unanswered),
            refused=len(history.refused),
            extra=[f"restarts   the server was started {self.cloud.starts} times", *self._said(executions), *lines],
        )
        report.violations = [*self._judge(stored, history, executions, host), *grown]
        return report

    def _said(self, executions):
        keys = {one.key for one in self.history.history.accepted if one.key}
        yield f"keys       {len(keys)} calls with a key, {self.load.repeated} of them sent again after their answer"
        yield f"answers    {self.clients.lost} lost on the way to clients after their request had arrived"
        cuts = self._short_cuts()
        met = sum(run.pid in met and run.began <= since for since, _, met in cuts for run in executions)
        for worker in self.workers:
            yield f"worker     {worker.name} ended with {dict(Counter(worker.ends))}, {worker.proxy.lost} answers lost"
        if self.workers:
            yield f"short cuts {len(cuts)} below the grace met {met} runs of user code"

    def _frozen(self):
        """From when to when a process was frozen, and a little longer, until others have noticed."""
        frozen = [fault for fault in self.faults.done if fault.place.startswith("freeze")]
        return [(fault.at, fault.ended + NOTICED_S) for fault in frozen]

    def _short_cuts(self):
        """Cuts far below the grace, with the user code that began after the fault before them was over."""
        ends = [0.0, *(fault.ended for fault in self.faults.done)]
        return [
            (fault.at, fault.ended + 1.0, self._since(ends[number], fault.met))
            for number, fault in enumerate(self.faults.done)
            if fault.place in PARTITIONS and fault.lasted_s < short_s(self.plan.grace_s) + 0.3
        ]

    def _since(self, earliest, pids):
        late = {run.pid for run in self.startlog.executions() if run.began > earliest}
        return frozenset(late & set(pids))

    def _judge(self, stored, history, executions, host):
        granted = without_early_starts(executions, stored, self.load.blocking)
        return [
            *checker.acknowledged_jobs_exist(history, stored),
            *checker.rows_are_whole(stored),
            *checker.ends_never_change(history, stored),
            *checker.cancels_hold(history, stored),
            *checker.nothing_is_stuck(stored),
            *checker.attempts_are_dense(stored),
            *checker.executions_fit_attempts(granted, stored),
            *checker.ends_are_explained(executions, stored, history, EXPECTED),
            *checker.executions_do_not_overlap(granted, self._frozen()),
            *checker.short_cuts_cost_nothing(executions, self._short_cuts(), self._spared()),
            *checker.streams_are_dense(stored),
            *checker.readers_saw_the_stream(history, stored),
            *checker.one_job_per_key(history, stored),
            *checker.nothing_is_left(host.before, host.snapshot()),
            *checker.logs_are_clean(self.cloud.logs(), EXPLAINED),
        ]

    def _spared(self):
        """Tokens of calls whose runs may end before their last word: cancelled ones, and those that fail."""
        history = self.history.history
        cancelled = {told.job for told in history.asked}
        told = history.accepted
        return frozenset(one.token for one in told if one.job in cancelled or one.function in FAILING)


def without_early_starts(executions, stored, blocking):
    """Leave out blocking calls that began before their grant was on disk and were granted again (G2.1)."""
    attempts = {job.token: job.attempt for job in stored.values()}
    began = Counter(run.token for run in executions)
    early = {token for token in blocking if began[token] > attempts.get(token, 0)}
    return [run for run in executions if run.token not in early]


def commit():
    """Return the commit of this checkout, with a mark when files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
