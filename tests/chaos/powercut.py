"""Power cuts: the data folder lies on an image of its own, which is copied at a random moment under load.

What the copy holds is what a disk would hold without its power: what was not flushed is gone. Everything is killed, the
copy takes the image's place, and a cloud is started on it: what was acknowledged before the cut has to be there. Needs
root and loop devices.
"""

import asyncio
import math
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress

from . import checker
from .checker import Violation
from .cloudrun import CloudFailed, CloudRun, send
from .faults import Done
from .history import HistoryFile
from .load import EXPECTED, Load
from .plan import make_plan
from .report import Report
from .run import APP, EXPLAINED, SETTLE_S, commit, without_early_starts
from .startlog import StartLog, make_address
from .stored import read_store

IMAGE_BYTES = 700 * 1024 * 1024
JOURNAL_S = 300
"""The filesystem writes its journal only when somebody asks for it: nobody does while the image is copied."""

UNREAD_S = 0.5
"""For so long clients go on to read what the server had sent before it was frozen: that was answered."""

AFTER_S = (1.0, 6.0)
"""When the power is cut, in seconds after the first call."""


class NoPower(Exception):
    """This machine cannot do it; the text says why."""


class Disk:
    """An image in a file, mounted on a folder."""

    def __init__(self, folder):
        self.image, self.mount = folder / "disk", folder / "mounted"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", self.image)

    def attach(self):
        """Mount it."""
        _run("mount", "-o", f"loop,commit={JOURNAL_S}", self.image, self.mount)

    def detach(self):
        """Unmount it; what still holds it lets go first."""
        for _ in range(50):
            if subprocess.run(["umount", self.mount], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        _run("umount", "-l", self.mount)

    def cut(self):
        """Copy the image as it lies there now."""
        _run("cp", "--sparse=always", self.image, self.image.with_suffix(".cut"))

    def replace(self):
        """The copy takes the image's place."""
        self.image.with_suffix(".cut").replace(self.image)


class PowerCuts:
    """So many power cuts, each on a fresh disk, or as many as fit into a time.

    Each comes within seconds after a cold start, so how many calls there were before it says nothing; there are some.

    Args:
        jobs: Calls at most before each cut.
        budget_s: No further cut begins after so long.
    """

    def __init__(self, seed, folder, *, cuts, jobs, after_s=AFTER_S, budget_s=math.inf):
        self._seed, self._folder, self._cuts, self._jobs = seed, folder, cuts, jobs
        self._after_s, self._budget_s = after_s, budget_s
        self._loaded_s = 0.0
        self._report = Report(title="power cuts", seed=seed, commit=commit(), jobs=0, planned=cuts, rate_min=0.0)

    async def run(self):
        """Return the report."""
        if os.geteuid() != 0:
            raise NoPower("power cuts need root, to mount images")
        began, report = time.monotonic(), self._report
        for number in range(self._cuts):
            if time.monotonic() - began > self._budget_s:
                report.extra.append(f"time       {number} of {self._cuts} cuts fitted into {self._budget_s:.0f} s")
                report.planned = number
                break
            folder, found = self._folder / str(number), len(report.violations)
            folder.mkdir()
            await self._one(folder, (self._seed + number) % 2**64)
            if len(report.violations) == found:
                shutil.rmtree(folder)
        report.took_s = time.monotonic() - began
        report.quiet_rate = report.jobs / self._loaded_s
        return report

    async def _one(self, folder, seed):
        plan = make_plan(seed, jobs=self._jobs, faults=0)
        disk, startlog = Disk(folder), StartLog(make_address(seed))
        disk.attach()
        cloud = CloudRun(folder, data=disk.mount / "data", options=("--disk-floor-mb", "32"))
        history = HistoryFile(folder / "history.jsonl")
        load = Load(lambda: cloud.api, history, plan, rate=120.0, at_once=40)
        await startlog.start()
        try:
            await cloud.start()
            await cloud.deploy(APP.read_text().replace("@ADDRESS@", startlog.address))
            await self._until_cut(cloud, load, plan)
            self._cut(cloud, disk, load)
            cloud.sweep()
            disk.detach()
            disk.replace()
            disk.attach()
            try:
                await cloud.start()
            except CloudFailed as error:
                self._report.violations.append(Violation("I1", f"seed {seed}", f"no start after the cut: {error}"))
                return
            await self._judge(cloud, startlog, history.history, load)
            await cloud.stop()
        finally:
            cloud.sweep()
            await startlog.stop()
            history.close()
            disk.detach()

    async def _until_cut(self, cloud, load, plan):
        began, loading = time.monotonic(), asyncio.create_task(load.run())
        await asyncio.wait([loading], timeout=plan.random("cut").uniform(*self._after_s))
        self._loaded_s += time.monotonic() - began
        for pid in cloud.processes():
            send(pid, signal.SIGSTOP)
        await asyncio.wait([loading], timeout=UNREAD_S)
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading

    def _cut(self, cloud, disk, load):
        disk.cut()
        live = load.accepted - load.ended
        self._report.faults.append(Done(time.monotonic(), "power cut", cloud.server, live, live > 0))

    async def _judge(self, cloud, startlog, history, load):
        stored, deadline = await read_store(cloud.address()), time.monotonic() + SETTLE_S
        while checker.nothing_is_stuck(stored) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            stored = await read_store(cloud.address())
        executions = without_early_starts(startlog.executions(), stored, load.blocking)
        report = self._report
        report.jobs += load.accepted
        report.statuses += Counter(job.status for job in stored.values())
        report.attempts += sum(job.attempt for job in stored.values())
        report.executions += len(executions)
        report.violations += [
            *checker.acknowledged_jobs_exist(history, stored),
            *checker.rows_are_whole(stored),
            *checker.ends_never_change(history, stored),
            *checker.cancels_hold(history, stored),
            *checker.nothing_is_stuck(stored),
            *checker.attempts_are_dense(stored),
            *checker.executions_fit_attempts(executions, stored),
            *checker.ends_are_explained(startlog.executions(), stored, history, EXPECTED),
            *checker.executions_do_not_overlap(executions),
            *checker.streams_are_dense(stored),
            *checker.readers_saw_the_stream(history, stored),
            *checker.logs_are_clean(cloud.logs(), EXPLAINED),
        ]


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoPower(f"{command[0]} does not work here: {done.stderr.strip()}")
