"""Carries out what the server says: runners, attempts, cancellation; and ends it all when the worker stops."""

from __future__ import annotations

import asyncio
import math

from apothic.wire.images import PrepareImage, TidyImages
from apothic.wire.lease import grace_of
from apothic.wire.link import (
    Assign,
    Cancel,
    ChunkResult,
    Finished,
    ItemsTaken,
    Lent,
    RunnerEnded,
    RunnerRef,
    StartRunner,
    TakeBack,
    Welcome,
)
from apothic_worker import journal
from apothic_worker.attempt import Key, Reports
from apothic_worker.batches import runner_of
from apothic_worker.chunk import holds_its_items
from apothic_worker.disk import written_by
from apothic_worker.failures import StartFailed, disk_limit, failure
from apothic_worker.images import Environments
from apothic_worker.lease import Stage, next_check_s, stage
from apothic_worker.limits import Limits
from apothic_worker.link_state import Drop
from apothic_worker.runner import Phase, Runner
from apothic_worker.zygotes import Zygotes

FAILED_KEPT = 256
"""Runners that could not be started and still answer for attempts that were on their way."""


class Supervisor:
    """The runners of one worker. Orders are obeyed at once or not at all; nothing here waits.

    Args:
        zygotes: Where runners are forked from.
        environments: Where packages are installed.
        limits: Makes their cgroups.
        reports: Gets everything that the server is told.
    """

    def __init__(self, zygotes: Zygotes, environments: Environments, limits: Limits, reports: Reports) -> None:
        self._environments = environments
        self._zygotes = zygotes
        self._limits = limits
        self._reports = reports
        self._runners: dict[str, Runner] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._failed: dict[str, Runner] = {}
        self._changed = asyncio.Event()
        self._is_draining = False
        self._echo = 0

    @property
    def runners(self) -> list[RunnerRef]:
        """Runners alive or starting."""
        return [_described(runner.spec) for runner in self._runners.values()]

    @property
    def writing(self) -> dict[str, int]:
        """Bytes that each runner wrote to disks so far, of those that serve."""
        serving = {name: one.leftovers for name, one in self._runners.items() if one.phase is Phase.SERVING}
        return {name: written_by(one.processes()) for name, one in serving.items() if one is not None}

    def stop_writing(self, runner: str) -> None:
        """Stop a runner, because the disk is nearly full and it wrote most; its attempts fail."""
        if found := self._runners.get(runner):
            found.took_too_much = True
            found.end("the disk is nearly full", error=disk_limit())

    @property
    def echo(self) -> int:
        """Number of the newest ping of this link."""
        return self._echo

    def linked(self) -> None:
        """A new link: no ping came on it yet, and the server says anew whose processors are lent."""
        self._echo = 0
        for runner in self._runners.values():
            runner.share.lend(is_lent=False)

    def lent(self, item: Lent) -> None:
        """Let what a runner computes come last, or as any other again; one that is not here is no matter."""
        if found := self._runners.get(item.runner):
            found.share.lend(is_lent=item.is_lent)

    def ping(self, number: int) -> None:
        """Remember the number: what else came on this way was obeyed before it."""
        self._echo = number

    def start_runner(self, item: StartRunner) -> None:
        """Start a runner; the same order twice is one."""
        if item.runner in self._runners:
            return
        if self._is_draining:
            self._reports.runner_ended(RunnerEnded(item.runner, "the worker stops"))
            return
        runner = runner_of(item, self._limits, self._reports, self._ended)
        self._runners[item.runner] = runner
        self._starts[item.runner] = asyncio.ensure_future(self._start(runner))
        loop = asyncio.get_running_loop()
        self._deadlines[item.runner] = loop.call_later(item.startup_timeout_s, self._start_timed_out, runner)

    def prepare_image(self, item: PrepareImage) -> None:
        """Make an environment ready and say so."""
        if not self._is_draining:
            self._environments.prepare(item, self._reports.build)

    def tidy_images(self, item: TidyImages) -> None:
        """Remove environments that nobody needs, and say what is here."""
        if not self._is_draining:
            self._environments.tidy(item, self._reports.build)

    def stop_runner(self, runner: str) -> None:
        """End an idle runner."""
        if found := self._runners.get(runner):
            found.stop()

    def assign(self, item: Assign) -> None:
        """Execute an attempt in its runner; lost when there is none. One that could not be started says why."""
        runner = self._runners.get(item.runner) or self._failed.get(item.runner)
        if runner is None or self._is_draining:
            error = failure("worker_lost", "the worker stops" if self._is_draining else "the runner has ended")
            self._reports.finished(Finished(item.job, item.fence, "lost", None, error, never_started=True))
            return
        if holds_its_items(item):
            runner.assign(item)
            return
        error = failure("arguments_unreadable", "the arguments are not those of the items that were assigned")
        self._reports.finished(Finished(item.job, item.fence, "failed", None, error, items=ChunkResult(0)))

    def cancel(self, item: Cancel) -> None:
        """Stop an attempt and report it; one that is not here is no matter."""
        any(runner.cancel((item.job, item.fence), item.grace_s) for runner in list(self._runners.values()))

    def take_back(self, item: TakeBack) -> None:
        """Let a chunk end with the item under way; one that is not here is no matter."""
        for runner in list(self._runners.values()):
            runner.take_back((item.job, item.fence))

    def items_taken(self, item: ItemsTaken) -> None:
        """Let a generator go on; one that is not here is no matter."""
        for runner in self._runners.values():
            runner.items_taken((item.job, item.fence), item.upto)

    def drop(self, item: Drop) -> None:
        """Stop attempts and runners that the server does not know, without a report."""
        for key in item.attempts:
            self._drop_attempt(key)
        for name in item.runners:
            if runner := self._runners.get(name):
                runner.drop_all()

    def guard(self, age_s: float, session: Welcome) -> float:
        """Stop the runners whose lease runs out, and return the seconds until the next one's may.

        Args:
            age_s: Since the leases were renewed.
            session: What the server says of them.
        """
        next_s = math.inf
        for runner in [runner for runner in self._runners.values() if runner.holds]:
            grace_s = grace_of(runner.spec.disconnect_grace_s, session.grace_s, session.heartbeat_s)
            next_s = min(next_s, next_check_s(age_s, grace_s))
            now = stage(age_s, grace_s)
            if now is not Stage.LIVE:
                journal.error("lease.lost", runner=runner.spec.runner, is_final=now is Stage.KILL)
                runner.end("the server was out of reach", is_final=now is Stage.KILL)
        return next_s

    async def drain(self, finish_s: float, hurry: asyncio.Event) -> None:
        """Take nothing more, give back what waits, let the rest finish, then stop it.

        Args:
            finish_s: How long running attempts may go on.
            hurry: Set to stop waiting.
        """
        self._is_draining = True
        for runner in list(self._runners.values()):
            runner.give_back()
        deadline = asyncio.get_running_loop().time() + finish_s
        while any(runner.running for runner in self._runners.values()) and not hurry.is_set():
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await self._wait_for_change(min(left_s, 0.25))
        await self._end_all()

    async def _end_all(self) -> None:
        while self._runners:
            for runner in list(self._runners.values()):
                runner.end("the worker stops")
            await self._wait_for_change(1.0)
        for start in list(self._starts.values()):
            start.cancel()
        await self._zygotes.close()

    async def _wait_for_change(self, timeout_s: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _start(self, runner: Runner) -> None:
        try:
            zygote = await self._zygotes.get(runner.spec)
        except StartFailed as error:
            journal.warning("runner.not_started", runner=runner.spec.runner, code=error.error.code)
            runner.fail_start(error.error, is_lost=error.is_lost)
            return
        if runner.phase is Phase.STARTING:
            runner.begin(zygote)

    def _start_timed_out(self, runner: Runner) -> None:
        if runner.phase is Phase.STARTING:
            message = f"starting a runner took longer than {runner.spec.startup_timeout_s} s"
            runner.fail_start(failure("startup_timeout", message))

    def _drop_attempt(self, key: Key) -> None:
        any(runner.drop(key) for runner in list(self._runners.values()))

    def _ended(self, runner: Runner) -> None:
        name = runner.spec.runner
        self._runners.pop(name, None)
        if runner.is_failed:
            self._failed[name] = runner
            for oldest in list(self._failed)[:-FAILED_KEPT]:
                del self._failed[oldest]
        self._deadlines.pop(name).cancel()
        if start := self._starts.pop(name, None):
            start.cancel()
        if runner.zygote is not None:
            if runner.took_too_much:
                # What it left in the zygote's /tmp may be the reason, and counts as nobody's now.
                self._zygotes.retire(runner.zygote)
            self._zygotes.released(runner.zygote)
        self._changed.set()


def _described(spec: StartRunner) -> RunnerRef:
    return RunnerRef(spec.runner, spec.org, spec.deployment, spec.function, spec.cpu, spec.memory_mb, spec.places)
