"""Environments on this machine: built once per (org, content), linked from one cache of files, removed by budget.

Rules:

- An environment is built in the scratch folder and renamed into place when it is whole, so one that has its name is
  whole, and what a killed worker left half-built is gone with the scratch folder.
- The files are those of uv's cache, linked: they are not flushed one by one. One that was not flushed before the
  machine went down is not trusted; it is built again, and the cache with it.
- One build per environment; who asks meanwhile waits for it. A build that failed answers for a minute to its
  deployment; a new deployment tries again at once.
- An environment in use is never removed. Those used longest ago go first when all are larger than the budget.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import secrets
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from apothic.wire.images import (
    BUILD_FAILURE_KEPT_S,
    BUILD_LINES_MAX,
    ENVIRONMENTS_TOLD_MAX,
    BuildLines,
    HeldImage,
    ImageSpec,
    ImagesTidied,
    Prepared,
    PrepareImage,
    TidyImages,
    environment_id,
    is_requirement,
)
from apothic.wire.values import RemoteError
from apothic_worker import journal
from apothic_worker.builds import BuildFailed, build, forget
from apothic_worker.failures import StartFailed, failure
from apothic_worker.folders import remove
from apothic_worker.forerunners import boot_of
from apothic_worker.interpreters import Interpreter
from apothic_worker.shelf import disk_bytes, held, packages_in, record, recorded, size_of, size_recorded

BUDGET_BYTES = 20 * 1024**3
"""Environments beyond this are removed, those used longest ago first. Files that several share count in each."""

BUILDS_AT_ONCE = 2
FAILURES_KEPT = 1_000

_PLAIN = re.compile(r"[0-9a-z]{1,64}")

OnReport = Callable[[BuildLines | Prepared | ImagesTidied], None]


class Build:
    """One build under way: its task, the lines so far, and who is told of more."""

    def __init__(self) -> None:
        self.task: asyncio.Task[int] | None = None
        self.lines: list[str] = []
        self.deployments: dict[str, OnReport] = {}

    def line(self, environment: str, text: str) -> None:
        """Keep a line and tell it."""
        if len(self.lines) > BUILD_LINES_MAX:
            return
        if len(self.lines) == BUILD_LINES_MAX:
            text = "the rest of the log is left out"
        self.lines.append(text)
        for deployment, report in self.deployments.items():
            report(BuildLines(deployment, environment, len(self.lines) - 1, [text]))


class Environments:
    """The environments below one folder.

    Args:
        root: Folder of ours; holds `<org>/<environment>/` and uv's cache.
        scratch: Folder on the same file system for what is not whole yet.
        interpreters: By `major.minor`.
        clock: Monotonic seconds.
        boot: Identity of the kernel's boot, empty where it is hidden; this machine's when not given.
    """

    def __init__(
        self,
        root: Path,
        scratch: Path,
        interpreters: dict[str, Interpreter],
        clock: Callable[[], float] = time.monotonic,
        boot: str | None = None,
    ) -> None:
        self._clock = clock
        self._root = root
        self._cache = root / "cache"
        self._scratch = scratch
        self._interpreters = interpreters
        self._builds: dict[tuple[str, str], Build] = {}
        self._failures: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._used: Counter[Path] = Counter()
        self._ready: dict[Path, dict[str, OnReport]] = {}
        self._slots = asyncio.Semaphore(BUILDS_AT_ONCE)
        self._tidying = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._boot = (boot_of() if boot is None else boot) or secrets.token_hex(
            16
        )  # where it is hidden, only what was flushed outlives this process
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self, order: PrepareImage, report: OnReport) -> None:
        """Have an environment ready and say so; what is said of the build goes to `report` first."""
        self._begin(self._prepare(order, report))

    def tidy(self, order: TidyImages, report: OnReport) -> None:
        """Say which environments of an org are here, after the removal of those that are neither kept nor in use."""
        self._begin(self._tidy(order, report))

    async def take(self, org: str, deployment: str, image: ImageSpec | None) -> Path | None:
        """Return the folder of an image's environment, built when it is not here; None when it installs nothing.

        It is kept until `give_back` was called as often as this.

        Raises:
            StartFailed: It cannot be built.
        """
        environment = environment_id(image)
        if image is None or not environment:
            return None
        folder = self._folder(org, environment)
        self._used[folder] += 1
        try:
            await self._ensure(org, deployment, environment, image)
        except BaseException:
            self.give_back(folder / "env")
            raise
        return folder / "env"

    def give_back(self, environment: Path | None) -> None:
        """Say that what `take` returned is not used any more."""
        if environment is None:
            return
        folder = environment.parent
        self._used[folder] -= 1
        if not self._used[folder]:
            del self._used[folder]

    async def close(self) -> None:
        """End builds; returns when nothing of them runs."""
        builds = [build.task for build in self._builds.values() if build.task is not None]
        tasks: list[asyncio.Task[Any]] = [*self._tasks, *builds]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._settling, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tidy(self, order: TidyImages, report: OnReport) -> None:
        try:
            async with self._tidying:
                report(await self._tidied(order))
        except (OSError, StartFailed) as error:  # who asked sees that there is no answer
            journal.warning("environments.not_tidied", reason=str(error))

    async def _tidied(self, order: TidyImages) -> ImagesTidied:
        folders = sorted(self._folder(order.org, "any").parent.glob("*"))[:ENVIRONMENTS_TOLD_MAX]
        found = await asyncio.to_thread(held, folders)
        if order.keep is None:
            return ImagesTidied(order.number, [self._told(one, order.org) for one in found])
        before = await asyncio.to_thread(disk_bytes, self._root)
        gone = [folder for folder in folders if folder.name not in order.keep and folder not in self._used]
        items = [self._told(one, order.org, gone) for one in found]
        after = await self._let_go(gone) if gone else before
        return ImagesTidied(order.number, items, max(0, before - after))

    def _told(self, one: HeldImage, org: str, gone: Collection[Path] = ()) -> HeldImage:
        folder = self._folder(org, one.environment)
        return replace(one, is_in_use=folder in self._used, is_removed=folder in gone)

    async def _let_go(self, folders: list[Path]) -> int:
        """Remove environments, and what the cache has for them alone; return what all that is left takes on disk.

        While something is built its packages may be those, so the cache stays as it is then.
        """
        away = Path(tempfile.mkdtemp(prefix="old-", dir=self._scratch))
        for folder in folders:  # before anything is awaited, so that nobody takes one or finds half of it
            with suppress(FileNotFoundError):
                folder.rename(away / folder.name)
                journal.info("environment.removed", environment=folder.name)
        left = list(self._root.glob("by-org/*/*"))
        packages = await asyncio.to_thread(lambda: packages_in(list(away.iterdir())) - packages_in(left))
        await asyncio.to_thread(remove, away)
        if not self._builds:
            async with AsyncExitStack() as slots:
                for _ in range(BUILDS_AT_ONCE):
                    await slots.enter_async_context(self._slots)
                await forget(packages, self._scratch, self._cache)
        return await asyncio.to_thread(disk_bytes, self._root)

    async def _prepare(self, order: PrepareImage, report: OnReport) -> None:
        try:
            took_ms = await self._ensure(order.org, order.deployment, order.environment, order.image, report)
        except StartFailed as error:
            report(Prepared(order.deployment, order.environment, 0, error.error))
        except OSError as error:
            # The next runner says it again, as a loss of the worker's and not of the job's.
            journal.warning("environment.not_built", environment=order.environment, reason=str(error))
            why = failure("image_build_failed", f"the worker could not write it: {error.strerror or 'input or output'}")
            report(Prepared(order.deployment, order.environment, 0, why))
        else:
            self._ready.setdefault(self._folder(order.org, order.environment), {})[order.deployment] = report
            report(Prepared(order.deployment, order.environment, took_ms))

    async def _ensure(
        self, org: str, deployment: str, environment: str, image: ImageSpec, report: OnReport | None = None
    ) -> int:
        """Return when the environment is there, and how many milliseconds it was built; 0 when it was there."""
        folder = self._folder(org, environment)
        if self._is_whole(folder):
            os.utime(folder)
            return 0
        known = self._failures.get((deployment, environment))
        if known is not None and self._clock() - known[0] < BUILD_FAILURE_KEPT_S:
            raise StartFailed(failure("image_build_failed", known[1]))
        interpreter = self._interpreters.get(image.python)
        if interpreter is None:
            raise StartFailed(python_not_available(image.python, self._interpreters))
        running = self._builds.get((org, environment))
        if running is None:
            running = self._builds[org, environment] = Build()
            running.task = asyncio.ensure_future(self._build(folder, environment, image, interpreter, running))
            running.task.add_done_callback(functools.partial(self._built, (org, environment)))
        if report is not None:
            if running.lines:
                report(BuildLines(deployment, environment, 0, list(running.lines)))
            running.deployments[deployment] = report
        assert running.task is not None
        try:
            return await asyncio.shield(running.task)
        except BuildFailed as error:
            self._failures[deployment, environment] = (self._clock(), str(error))
            if len(self._failures) > FAILURES_KEPT:
                self._failures.popitem(last=False)
            raise StartFailed(failure("image_build_failed", str(error))) from error

    async def _build(
        self, folder: Path, environment: str, image: ImageSpec, interpreter: Interpreter, running: Build
    ) -> int:
        if not all(is_requirement(requirement) for requirement in image.requirements):
            raise BuildFailed("a requirement is none")
        async with self._slots:
            began = time.monotonic()
            if folder.exists():  # not trusted, see above
                await asyncio.to_thread(self._forget, folder)
            half = Path(tempfile.mkdtemp(prefix="environment-", dir=self._scratch))
            try:
                await build(image, interpreter, half, self._cache, lambda text: running.line(environment, text))
                size = await asyncio.to_thread(size_of, half)
                record(half, size, self._boot)
                folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                half.chmod(0o755)
                half.rename(folder)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(remove, half))
                raise
            took_ms = max(1, round((time.monotonic() - began) * 1000))
        journal.info("environment.built", environment=environment, took_ms=took_ms, size_bytes=size)
        settling = asyncio.ensure_future(self._settled(folder, size))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        return took_ms

    def _built(self, name: tuple[str, str], task: asyncio.Task[int]) -> None:
        del self._builds[name]
        if not task.cancelled():
            task.exception()  # told to those who wait, if anybody still does

    def _folder(self, org: str, environment: str) -> Path:
        if not (_PLAIN.fullmatch(org) and _PLAIN.fullmatch(environment)):
            raise StartFailed(failure("image_build_failed", "the environment's name is not plain"))
        return self._root / "by-org" / org / environment

    def _is_whole(self, folder: Path) -> bool:
        found = recorded(folder)
        return found is not None and found.get("boot") in ("", self._boot)

    def _forget(self, folder: Path) -> None:
        """Remove an environment that may have lost files, and the cache that it shares them with."""
        remove(folder)
        remove(self._cache)
        self._cache.mkdir(mode=0o700)

    async def _settled(self, folder: Path, size: int) -> None:
        """Have it on disk, then write that it is; and keep the budget."""
        await asyncio.to_thread(_settle, folder, size)
        await self.collect()

    async def collect(self, budget_bytes: int = BUDGET_BYTES) -> None:
        """Remove environments beyond a budget, those used longest ago first, never one in use; say which are gone."""
        for folder in await asyncio.to_thread(self._collect, budget_bytes):
            for deployment, report in self._ready.pop(folder, {}).items():
                report(Prepared(deployment, folder.name, is_gone=True))

    def _collect(self, budget_bytes: int) -> list[Path]:
        removed: list[Path] = []
        found = [(folder.stat().st_mtime, folder, size_recorded(folder)) for folder in self._root.glob("by-org/*/*")]
        total = sum(size for _, _, size in found)
        for _, folder, size in sorted(found):
            if total <= budget_bytes:
                break
            if folder not in self._used:
                journal.info("environment.removed", environment=folder.name, size_bytes=size)
                gone = Path(tempfile.mkdtemp(prefix="old-", dir=self._scratch))
                folder.rename(gone / folder.name)  # at once: nobody finds half of it
                remove(gone)
                removed.append(folder)
                total -= size
        return removed


def python_not_available(python: str, interpreters: dict[str, Interpreter]) -> RemoteError:
    """Return the error for a Python that this machine does not have, with those that it has."""
    here = ", ".join(sorted(interpreters, key=lambda version: [int(part) for part in version.split(".")]))
    message = f"Python {python} is not on this worker, and none is downloaded; it has {here}"
    return failure("python_not_available", message)


def _settle(folder: Path, size: int) -> None:
    os.sync()
    if folder.is_dir():
        record(folder, size, "")
