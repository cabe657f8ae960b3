"""The zygotes of this worker: one per (org, deployment, archive, interpreter, image), kept warm for a while."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

from apothic.wire.images import ImageSpec, image_id
from apothic.wire.link import StartRunner
from apothic_worker import journal
from apothic_worker.archive import ArchiveRefused
from apothic_worker.archives import ArchiveGone, Archives, FetchFailed
from apothic_worker.failures import StartFailed, failure
from apothic_worker.images import Environments, python_not_available
from apothic_worker.interpreters import Interpreter
from apothic_worker.zygote import Site, Zygote

IDLE_S = 300.0
ZYGOTES_MAX = 32
"""Zygotes without runners beyond this number are ended, the oldest first."""

FETCH_RETRY_S = 1.0
FETCH_SHARE = 0.5
"""Share of the time to start after which a runner without an archive is given up, before its start is too slow."""

NOT_PRELOADED_MAX = 10_000
"""Deployments remembered as unfit for loading before the fork; beyond it, one is found out again."""

Slot = tuple[str, str, str, str, str]


class Zygotes:
    """Starts, shares and ends zygotes.

    Args:
        site: Executor, limits and runtime tree.
        interpreters: By `major.minor`.
        archives: Unpacked archives.
        environments: Installed packages.
    """

    def __init__(
        self, site: Site, interpreters: dict[str, Interpreter], archives: Archives, environments: Environments
    ) -> None:
        self._environments = environments
        self._environment_of: dict[Zygote, Path] = {}
        self._site = site
        self._interpreters = interpreters
        self._archives = archives
        self._names = itertools.count(1)
        self._starts: dict[Slot, asyncio.Task[Zygote]] = {}
        self._waiting: Counter[Slot] = Counter()
        self._alive: dict[Zygote, tuple[Slot, Path]] = {}
        self._idle: dict[Zygote, asyncio.TimerHandle] = {}
        self._not_preloaded: set[str] = set()
        self._retired: set[Zygote] = set()

    @property
    def names(self) -> set[str]:
        """Names of those that live."""
        return {zygote.name for zygote in self._alive}

    async def get(self, spec: StartRunner) -> Zygote:
        """Return the ready zygote of the spec's deployment, starting it when there is none.

        Takes as long as it takes: who asks sets a bound. A start that nobody waits for any more is given up.

        Raises:
            StartFailed: It cannot be had.
        """
        slot = (spec.org, spec.deployment, spec.archive, spec.python, image_id(spec.image))
        start = self._starts.get(slot)
        if start is None:
            start = self._starts[slot] = asyncio.ensure_future(self._start(slot, spec))
        self._waiting[slot] += 1
        try:
            zygote = await asyncio.shield(start)
        except BaseException:
            if start.done() and self._starts.get(slot) is start:
                del self._starts[slot]
            raise
        finally:
            self._waiting[slot] -= 1
            if not self._waiting[slot]:
                del self._waiting[slot]
                self._give_up(slot, start)
        zygote.allow(spec.memory_mb)
        if timer := self._idle.pop(zygote, None):
            timer.cancel()
        return zygote

    def released(self, zygote: Zygote) -> None:
        """A runner of it is gone: without runners it is ended after a while."""
        if zygote.runners or not zygote.is_alive:
            return
        if zygote in self._retired:
            zygote.kill()
        elif zygote not in self._idle:
            self._idle[zygote] = asyncio.get_running_loop().call_later(IDLE_S, zygote.kill)
            for surplus in list(self._idle)[: max(0, len(self._idle) - ZYGOTES_MAX)]:
                surplus.kill()

    def retire(self, zygote: Zygote) -> None:
        """Fork nothing from it any more: the next runner gets a new sandbox. It ends with its last runner."""
        if zygote.is_alive:
            self._retired.add(zygote)
            self._forget_start(zygote)

    async def close(self) -> None:
        """End all zygotes; returns when nothing of them runs any more."""
        for start in self._starts.values():
            start.cancel()
        await asyncio.gather(*self._starts.values(), return_exceptions=True)
        ends = [zygote.ended for zygote in self._alive]
        for zygote in list(self._alive):
            zygote.kill()
        await asyncio.gather(*ends)

    def _give_up(self, slot: Slot, start: asyncio.Task[Zygote]) -> None:
        if not start.done():
            start.cancel()
            if self._starts.get(slot) is start:
                del self._starts[slot]

    async def _start(self, slot: Slot, spec: StartRunner) -> Zygote:
        try:
            return await self._try_start(slot, spec)
        except OSError as error:
            raise _lost(f"a runner cannot be started: {error}") from error

    async def _try_start(self, slot: Slot, spec: StartRunner) -> Zygote:
        if refusal := self._site.executor.refusal(spec.org):
            raise StartFailed(failure("isolation_refused", refusal))
        interpreter = self._interpreters.get(spec.python)
        if interpreter is None:
            raise StartFailed(python_not_available(spec.python, self._interpreters))
        archive = await self._archive(spec)
        if spec.image is not None:
            self._check_files(archive, spec.image)
        environment = await self._environments.take(spec.org, spec.deployment, spec.image)
        try:
            zygote = await self._loaded(slot, spec, interpreter, archive, environment)
        except BaseException:
            self._environments.give_back(environment)
            raise
        if environment is not None:
            self._environment_of[zygote] = environment
            if not zygote.is_alive:
                self._left(zygote)
        return zygote

    def _check_files(self, archive: Path, image: ImageSpec) -> None:
        """Check that what the image names of the app's files is there, and can be shown where it says."""
        for place, path in image.mounts.items():
            if ".." in Path(path).parts or not (archive / path).exists():
                raise StartFailed(failure("load_failed", f"the app's files have no {path}, to be found at {place}"))
            if problem := self._site.executor.mount_problem(place):
                raise StartFailed(failure("load_failed", problem))
        if not _has_workdir(archive, image):
            message = f"workdir {image.workdir}: the app's files have no such folder"
            raise StartFailed(failure("load_failed", message))

    async def _loaded(
        self, slot: Slot, spec: StartRunner, interpreter: Interpreter, archive: Path, environment: Path | None
    ) -> Zygote:
        """Return a zygote that has loaded the app, or will in each runner when that cannot be done before."""
        preload = spec.deployment not in self._not_preloaded
        zygote, answer = await self._launch(slot, spec, interpreter, archive, environment, preload=preload)
        if preload and not answer.get("preloaded"):
            journal.info("zygote.not_preloaded", deployment=spec.deployment, reason=answer.get("reason"))
            if len(self._not_preloaded) >= NOT_PRELOADED_MAX:
                self._not_preloaded.clear()
            self._not_preloaded.add(spec.deployment)
            await _end(zygote)
            zygote, _ = await self._launch(slot, spec, interpreter, archive, environment, preload=False)
        return zygote

    async def _launch(
        self,
        slot: Slot,
        spec: StartRunner,
        interpreter: Interpreter,
        archive: Path,
        environment: Path | None,
        *,
        preload: bool,
    ) -> tuple[Zygote, dict[str, object]]:
        zygote = Zygote(self._site, str(next(self._names)), spec.memory_mb, self._ended)
        self._alive[zygote] = (slot, archive)
        zygote.start(interpreter, archive, environment, spec.image)
        try:
            return zygote, await zygote.load(spec, preload=preload)
        except BaseException:
            await _end(zygote)
            raise

    async def _archive(self, spec: StartRunner) -> Path:
        deadline = asyncio.get_running_loop().time() + FETCH_SHARE * spec.startup_timeout_s
        while True:
            try:
                path = await self._archives.get(spec.org, spec.deployment, spec.archive)
                self._archives.prune({path, *(used for _, used in self._alive.values())})
                return path
            except ArchiveGone as error:
                raise StartFailed(failure("deployment_deleted", str(error))) from error
            except ArchiveRefused as error:
                raise StartFailed(failure("load_failed", str(error))) from error
            except FetchFailed as error:
                journal.warning("archive.fetch_failed", deployment=spec.deployment, reason=str(error))
                if asyncio.get_running_loop().time() > deadline:
                    raise _lost(str(error)) from error
                await asyncio.sleep(FETCH_RETRY_S)

    def _left(self, zygote: Zygote) -> None:
        self._environments.give_back(self._environment_of.pop(zygote, None))

    def _ended(self, zygote: Zygote) -> None:
        self._left(zygote)
        self._retired.discard(zygote)
        self._forget_start(zygote)
        del self._alive[zygote]
        if timer := self._idle.pop(zygote, None):
            timer.cancel()

    def _forget_start(self, zygote: Zygote) -> None:
        """Let the next runner of its deployment start another one."""
        slot, _ = self._alive[zygote]
        start = self._starts.get(slot)
        if (
            start is not None
            and start.done()
            and not start.cancelled()
            and start.exception() is None
            and start.result() is zygote
        ):
            del self._starts[slot]


def _lost(message: str) -> StartFailed:
    return StartFailed(failure("worker_lost", message), is_lost=True)


async def _end(zygote: Zygote) -> None:
    zygote.kill()
    await asyncio.shield(zygote.ended)


def _has_workdir(archive: Path, image: ImageSpec) -> bool:
    """Whether calls can begin where the image says: in a folder of the app's that is there, or in one that is made."""
    wanted = Path("/app", image.workdir)
    for place, path in {"/app": "", **image.mounts}.items():
        if wanted.is_relative_to(place):
            return (archive / path / wanted.relative_to(place)).is_dir()
    return True
