"""Clients: they call, wait, cancel and watch at a bounded rate, and write down everything that they were told.

A call is tried until it is accepted, with a new token each time, so that whatever became of an unanswered one is told
apart. Then its client stays with it to the end.
"""

import asyncio
import json
import time

from .checker import Expectation
from .history import Accepted, CancelAnswered, CancelAsked, Ended, Read, Refused, Unanswered
from .wire import Broken

TERMINAL = ("succeeded", "failed", "cancelled", "timed_out")
USER_DEATHS = frozenset({"killed_by_signal", "exited"})
EXPECTED = {
    "quick": Expectation(),
    "slow": Expectation(),
    "chatty": Expectation(),
    "fan": Expectation(),
    "flaky": Expectation(),
    "family": Expectation(),
    "fails": Expectation(ends=frozenset(), codes=frozenset({"exception"}) | USER_DEATHS),
    "once": Expectation(codes=frozenset({"worker_lost"}) | USER_DEATHS, is_once=True),
}
KINDS = {
    "spawn quick": 30,
    "spawn slow": 10,
    "spawn fan": 10,
    "block quick": 18,
    "block slow": 5,
    "watch chatty": 8,
    "cancel slow": 6,
    "spawn flaky": 4,
    "spawn fails": 3,
    "spawn once": 3,
    "spawn family": 3,
}
END_WITHIN_S = 240.0
"""A job that has not ended so long after it was accepted is stuck."""

PAUSE_S = 0.2


class Load:
    """Calls until `plan.jobs` were accepted.

    Args:
        api: Returns the API of the cloud as it is now.
        history: Gets every record.
        rate: Calls a second at most.
        at_once: Clients at once at most.
    """

    def __init__(self, api, history, plan, *, rate, at_once):
        self._api = api
        self._history = history
        self._plan = plan
        self._chance = plan.random("load")
        self._rate = rate
        self._room = asyncio.Semaphore(at_once)
        self._changed = asyncio.Event()
        self._tries = 0
        self._unaccepted = 0
        self.accepted = 0
        self.ended = 0
        self.blocking = set()
        self.began = time.monotonic()
        self.quiet_s = None
        self.stuck = []

    @property
    def live(self):
        """Calls that were accepted, or are being answered, and have not ended."""
        return self.accepted - self.ended

    async def accepted_at_least(self, jobs):
        """Wait until so many calls were accepted."""
        while self.accepted < jobs:
            self._changed.clear()
            await self._changed.wait()

    async def run(self):
        """Make all calls and stay with each to its end."""
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.jobs):
                await self._room.acquire()
                due = self.began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                kind = self._chance.choices(list(KINDS), list(KINDS.values()))[0]
                group.create_task(self._client(kind, self._chance.random()))

    async def _client(self, kind, chance):
        verb, function = kind.split()
        try:
            await getattr(self, f"_{verb}")(function, chance)
        finally:
            self._room.release()

    # --- kinds of clients

    async def _spawn(self, function, chance):
        await self._end(await self._accept(function, chance))

    async def _block(self, function, chance):
        job, status = await self._call_until_accepted(function, chance, wait_s=50)
        if status not in TERMINAL:
            await self._end(job)
        else:
            self._has_ended()

    async def _cancel(self, function, chance):
        job = await self._accept(function, chance)
        await asyncio.sleep(chance * 0.5)
        self._history.add(CancelAsked(at=time.monotonic(), job=job))
        for _ in range(2):
            answer = await self._until_answered("POST", f"/v1/jobs/jobs:{job}/cancel")
            assert answer.status == 200, answer
            self._history.add(CancelAnswered(at=time.monotonic(), job=job, status=answer.json["status"]))
        await self._end(job)

    async def _watch(self, function, chance):
        job = await self._accept(function, chance)
        after, deadline = -1, time.monotonic() + END_WITHIN_S
        while time.monotonic() < deadline:
            seen = []
            try:
                is_whole = await self._api().events(f"/v1/jobs/jobs:{job}/events?after={after}", seen)
            except Broken:
                await asyncio.sleep(PAUSE_S)
                continue
            told = Read(at=time.monotonic(), job=job, reader=job, after=after, events=list(seen), is_whole=is_whole)
            self._history.add(told)
            after = seen[-1][0] if seen else after
            if is_whole:
                break
        await self._end(job)

    # --- one call

    async def _accept(self, function, chance):
        job, _ = await self._call_until_accepted(function, chance, wait_s=0)
        return job

    async def _call_until_accepted(self, function, chance, *, wait_s):
        while True:
            self._tries += 1
            token = f"t{self._plan.seed % 100_000}-{self._tries}"
            if wait_s:
                self.blocking.add(token)
            arguments = [token, round(0.05 + chance * 0.6, 3)] if function in ("slow", "fan") else [token]
            path = f"/v1/apps/chaos/functions/{function}/calls?wait_s={wait_s}"
            try:
                answer = await self._api().ask("POST", path, {"args": arguments}, deadline_s=wait_s + 20)
            except Broken as error:
                self._history.add(Unanswered(at=time.monotonic(), token=token, why=str(error)))
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status in (200, 202):
                return self._accepted(answer.json, token, function)
            self._history.add(Refused(at=time.monotonic(), token=token, status=answer.status, code=answer.json["code"]))
            await asyncio.sleep(PAUSE_S)

    def _accepted(self, told, token, function):
        job = told["job_id"].removeprefix("jobs:")
        self._history.add(Accepted(at=time.monotonic(), job=job, token=token, function=function))
        self.accepted += 1
        if self.accepted == self._plan.quiet_jobs:
            self.quiet_s = time.monotonic() - self.began
        self._changed.set()
        if told["status"] in TERMINAL:
            self._note_end(job, told)
        return job, told["status"]

    async def _end(self, job):
        deadline = time.monotonic() + END_WITHIN_S
        while time.monotonic() < deadline:
            answer = await self._until_answered("GET", f"/v1/jobs/jobs:{job}/outcome?wait_s=20")
            if answer.status == 200:
                self._note_end(job, answer.json)
                self._has_ended()
                return
        self.stuck.append(job)
        self._has_ended()

    def _note_end(self, job, told):
        error = told.get("error") or {}
        result = json.dumps(told["result"]) if told["status"] == "succeeded" else None
        self._history.add(
            Ended(at=time.monotonic(), job=job, status=told["status"], result=result, code=error.get("code"))
        )

    def _has_ended(self):
        self.ended += 1
        self._changed.set()

    async def _until_answered(self, method, path, body=None):
        """Ask until there is an answer that is none of a cloud that stands up again."""
        deadline = time.monotonic() + END_WITHIN_S
        while True:
            try:
                answer = await self._api().ask(method, path, body, deadline_s=40)
                if answer.status < 500 and answer.status != 429:
                    return answer
            except Broken:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(PAUSE_S)
