"""Clients of maps: processes that map with the SDK, are killed, and are followed by others with the same key.

Beside them a second client cancels, a third watches a group's events, and single calls go on all the time.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from ..cloudrun import ROOT, CloudFailed
from ..history import CancelAnswered, CancelAsked, Read
from ..wire import Broken

POLL_S = 0.05
PAUSE_S = 0.3
TRIES_MAX = 40
"""Processes of one map, at most; each that loses the cloud for long gives up by itself."""

CANCELS, CANCELS_AT_ONCE = 12, 30
"""Items that are cancelled one by one, and with one request."""


@dataclass
class Mapped:
    """What became of a map's clients.

    Attributes:
        told: What the SDK gave; None when no client came to its end.
        kills: How often a client was killed.
        losses: How often one gave up by itself.
    """

    shape: str
    spec: object
    told: dict | None = None
    kills: int = 0
    losses: int = 0


class MapsLoad:
    """Runs maps, some at once, until `count` were begun and no fault comes any more.

    Args:
        api: Returns the API of the cloud as it is now.
        singles: A `Load` of single calls, which trickles until the end.
        startlog: Tells how many items have run.
        specs: Yields shapes and maps, as `work.specs`.
        environment: Returns that of a client.

    Attributes:
        maps: What became of each map that was begun, by its tag.
        stuck: Tags of those whose clients did not end in time.
    """

    def __init__(
        self, api, singles, startlog, history, plan, specs, *, folder, environment, count, at_once, patience_s
    ):
        self._api = api
        self._singles = singles
        self._startlog = startlog
        self._history = history
        self._plan = plan
        self._specs = specs
        self._folder = folder
        self._environment = environment
        self._count = count
        self._room = asyncio.Semaphore(at_once)
        self._patience_s = patience_s
        self._chance = plan.random("maps")
        self._limit = 0
        self._running = set()
        self.maps = {}
        self.stuck = []
        self.quiet_s = None
        self.began = time.monotonic()

    # --- what faults and reports ask

    @property
    def accepted(self):
        """Items and calls that ran to their end."""
        return self._startlog.finished

    @property
    def live(self):
        """Maps whose clients wait."""
        return len(self._running)

    @property
    def blocking(self):
        return self._singles.blocking

    @property
    def repeated(self):
        return self._singles.repeated

    def keep_near(self, after_jobs):
        """The next fault comes; None when none comes any more."""
        self._limit = after_jobs
        self._singles.keep_near(None if after_jobs is None else 0)

    async def accepted_at_least(self, items):
        """Wait until so many items ran."""
        while self.accepted < items:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    # --- its life

    async def run(self):
        """Map until the faults are over, and stay with every map to its end."""
        self.began = time.monotonic()
        self._singles.keep_near(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._singles.run())
            group.create_task(self._note_quiet())
            for number, (shape, spec) in enumerate(self._specs):
                await self._room.acquire()
                if self._limit is None and number >= self._count:
                    return
                group.create_task(self._map(shape, spec))

    async def _note_quiet(self):
        await self.accepted_at_least(self._plan.quiet_jobs)
        self.quiet_s = time.monotonic() - self.began

    async def _map(self, shape, spec):
        self.maps[spec.tag] = mapped = Mapped(shape.name, spec)
        self._running.add(spec.tag)
        beside = [asyncio.create_task(one) for one in self._beside(spec)]
        try:
            async with asyncio.timeout(self._patience_s):
                await self._clients(spec, mapped)
                await asyncio.gather(*beside)
        except TimeoutError:
            self.stuck.append(spec.tag)
        finally:
            for one in beside:
                one.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._running.discard(spec.tag)
            self._room.release()

    def _beside(self, spec):
        if spec.cancel:
            yield self._cancel(spec)
        elif spec.key:
            yield self._watch(spec)

    # --- clients

    async def _clients(self, spec, mapped):
        path, out = self._folder / f"map-{spec.tag}.json", self._folder / f"map-{spec.tag}.out.json"
        path.write_text(spec.text())
        kills = list(spec.kills)
        for _ in range(TRIES_MAX):
            status = await self._client(spec.tag, path, out, kills.pop(0) if kills else None)
            if status == 0:
                mapped.told = json.loads(out.read_text())
                return
            if status is None:
                mapped.kills += 1
            else:
                mapped.losses += 1
            if not spec.key and not out.with_suffix(".group").exists():
                return  # what its client had sent is cancelled in the end
            await asyncio.sleep(PAUSE_S)

    async def _client(self, tag, path, out, kill_after_s):
        """Run one process to its end; return its exit status, None when it was killed."""
        with (self._folder / f"map-{tag}.err").open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.maps.client",
                str(path),
                str(out),
                cwd=ROOT,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            async with asyncio.timeout(kill_after_s):
                return await process.wait()
        except TimeoutError:
            return None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # --- beside them

    async def cancel_group(self, group):
        """Ask for the end of a group until that was answered."""
        await self._ask_cancel(group, f"/v1/groups/groups:{group}/cancel", {})

    async def _group_of(self, spec):
        """Return the key of a map's group, once there is one."""
        while True:
            with suppress(Broken):
                answer = await self._api().ask("GET", f"/v1/groups?function={spec.function}&limit=100")
                if answer.status == 200:
                    named = [one["id"] for one in answer.json["items"] if one["key"] == spec.key]
                    if named:
                        return named[0].removeprefix("groups:")
            await asyncio.sleep(PAUSE_S)

    async def _cancel(self, spec):
        group = await self._group_of(spec)
        await asyncio.sleep(spec.cancel_after_s)
        if spec.cancel == "group":
            for _ in range(2):
                await self.cancel_group(group)
            (self._folder / f"map-{spec.tag}.out.go").touch()
            return
        numbers = self._chance.sample(range(spec.items), CANCELS + CANCELS_AT_ONCE)
        for number in numbers[:CANCELS]:
            await self._ask_cancel(f"{group}.{number}", f"/v1/jobs/jobs:{group}.{number}/cancel")
        for number in numbers[CANCELS:]:
            self._history.add(CancelAsked(at=time.monotonic(), job=f"{group}.{number}"))
        await self._until_answered(f"/v1/groups/groups:{group}/cancel", {"items": numbers[CANCELS:]})

    async def _ask_cancel(self, job, path, body=None):
        self._history.add(CancelAsked(at=time.monotonic(), job=job))
        answer = await self._until_answered(path, body)
        if answer.status == 200:  # 404: the item was not sent yet
            self._history.add(CancelAnswered(at=time.monotonic(), job=job, status=answer.json["status"]))

    async def _watch(self, spec):
        group = await self._group_of(spec)
        after, is_whole = -1, False
        while not is_whole:
            seen = []
            try:
                is_whole = await self._api().events(f"/v1/groups/groups:{group}/events?after={after}", seen)
            except Broken:
                await asyncio.sleep(PAUSE_S)
                continue
            told = Read(at=time.monotonic(), job=group, reader=group, after=after, events=seen, is_whole=is_whole)
            self._history.add(told)
            after = seen[-1][0] if seen else after

    async def _until_answered(self, path, body=None):
        while True:
            with suppress(Broken):
                answer = await self._api().ask("POST", path, body, deadline_s=40)
                if answer.status in (200, 404):
                    return answer
                if answer.status < 500 and answer.status != 429:
                    raise CloudFailed(f"POST {path} was answered {answer.status}: {answer.json}")
            await asyncio.sleep(PAUSE_S)

    def said(self):
        """Yield lines for the report."""
        shapes = Counter(one.shape for one in self.maps.values())
        yield f"maps       {len(self.maps)}: " + ", ".join(f"{count} {name}" for name, count in sorted(shapes.items()))
        kills, losses = (sum(getattr(one, name) for one in self.maps.values()) for name in ("kills", "losses"))
        yield f"callers    {kills} killed and followed by another with their key, {losses} lost the cloud for long"
