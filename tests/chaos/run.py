"""One run from start to end: a real cloud, load, faults, quiescence, judgement."""

import asyncio
import subprocess
import time
from collections import Counter
from pathlib import Path

from . import checker
from .cloudrun import ROOT, CloudRun
from .faults import Faults
from .history import HistoryFile
from .host import Host
from .load import EXPECTED, Load
from .report import OPERATIONS_PER_S_MIN, Report
from .startlog import StartLog, make_address
from .stored import read_store

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


class Run:
    """One run of one plan in one folder.

    Attributes:
        rate: Calls a second at most.
    """

    def __init__(self, plan, folder, *, title, rate=120.0, at_once=40, rate_min=OPERATIONS_PER_S_MIN, environment=None):
        self.plan = plan
        self.folder = folder
        self.cloud = CloudRun(folder, environment=environment)
        self.startlog = StartLog(make_address(plan.seed))
        self.history = HistoryFile(folder / "history.jsonl")
        self.load = Load(lambda: self.cloud.api, self.history, plan, rate=rate, at_once=at_once)
        self.faults = Faults(self.cloud, self.startlog, self.load, plan, log=folder / "faults.jsonl")
        self._title = title
        self._rate_min = rate_min
        self._began = time.monotonic()

    async def run(self):
        """Return the report; nothing of the cloud is left, whatever happened."""
        await self.startlog.start()
        try:
            host = Host(self.cloud)
            await self.cloud.start()
            await self.cloud.deploy(APP.read_text().replace("@ADDRESS@", self.startlog.address))
            await self._strain(host)
            stored = await read_store(self.cloud.address())
            host.look()
            await self.cloud.stop()
            return self._report(stored, host)
        finally:
            self.cloud.sweep()
            await self.startlog.stop()
            self.history.close()

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
            await asyncio.wait([load], timeout=1.0)

    async def _settle(self):
        """Wait until no job is left: those whose callers never heard of them, too."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            stored = await read_store(self.cloud.address())
            if not checker.nothing_is_stuck(stored) and not self.startlog.running:
                return
            await asyncio.sleep(0.2)

    def _report(self, stored, host):
        executions = self.startlog.executions()
        history = self.history.history
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
            extra=[f"restarts   the server was started {self.cloud.starts} times"],
        )
        report.violations = self._judge(stored, history, executions, host)
        return report

    def _frozen(self):
        """From when to when a process was frozen, and a little longer, until others have noticed."""
        frozen = [fault for fault in self.faults.done if fault.place.startswith("freeze")]
        return [(fault.at, fault.at + fault.lasted_s + NOTICED_S) for fault in frozen]

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
            *checker.streams_are_dense(stored),
            *checker.readers_saw_the_stream(history, stored),
            *checker.one_job_per_key(history, stored),
            *checker.nothing_is_left(host.before, host.snapshot()),
            *checker.logs_are_clean(self.cloud.logs(), EXPLAINED),
        ]


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
