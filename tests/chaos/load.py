"""Clients: they call, wait, cancel and watch at a bounded rate, and write down everything that they were told.

A call is tried until it is accepted. Some carry an idempotency key: they are repeated as they were. Others get a new
token each time, so that whatever became of an unanswered one is told apart. Then the client stays with its job to the
end.
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
    "large": Expectation(answers_token=False),
    "long": Expectation(outlives_leases=True),
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
    "spawn large": 3,
}
LONG = {"spawn long": 1}
LONG_SHARE = 0.015
WITH_LONG = {**KINDS, "spawn long": LONG_SHARE * sum(KINDS.values())}
"""Now and then a call outlasts the lease of a machine that is cut off."""

PATIENCE_S = 240.0
"""A job that has not ended so long after it was accepted is stuck."""

PAUSE_S = 0.2
KEYED = 0.6
"""Share of the calls with an idempotency key."""

AGAIN = 0.1
"""Share of those that are sent once more after they were accepted."""

LEAD_SHARE = 0.05
"""When it is so far ahead of the next fault, as a share of all calls, the load waits for it and only trickles."""

TRICKLE_S = 0.1


class Load:
    """Makes `plan.jobs` calls, and some more while it waits for faults that take long.

    Args:
        api: Returns the API of the cloud as it is now.
        history: Gets every record.
        rate: Calls a second at most.
        at_once: Clients at once at most.
        patience_s: They stay with a job for so long.
        kinds: What clients do, each with its weight.
        long_s: From and to, how many seconds a call of `long` lasts.
    """

    def __init__(self, api, history, plan, *, rate, at_once, patience_s=PATIENCE_S, kinds=None, long_s=(0.0, 0.0)):
        self._api = api
        self._history = history
        self._plan = plan
        self._chance = plan.random("load")
        self._rate = rate
        self._patience_s = patience_s
        self._room = asyncio.Semaphore(at_once)
        self._changed = asyncio.Event()
        self._tries = 0
        self._kinds = kinds or KINDS
        self._long_s = long_s
        self._limit = None
        self._cancelled = asyncio.Event()
        self.repeated = 0
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

    def keep_near(self, after_jobs):
        """The next fault comes after so many calls; None when none comes any more."""
        self._limit = None if after_jobs is None else after_jobs + LEAD_SHARE * self._plan.jobs

    async def accepted_at_least(self, jobs):
        """Wait until so many calls were accepted."""
        while self.accepted < jobs:
            self._changed.clear()
            await self._changed.wait()

    async def next_cancel(self):
        """Wait until a client was answered all that it asks of a cancel."""
        self._cancelled.clear()
        await self._cancelled.wait()

    async def run(self):
        """Make all calls and stay with each to its end."""
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.jobs):
                while self._limit is not None and number > self._limit:
                    await self._trickle(group)
                due = self.began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._begin(group)
            while self._limit is not None:
                await self._trickle(group)

    async def _trickle(self, group):
        await self._begin(group)
        await asyncio.sleep(TRICKLE_S)

    async def _begin(self, group):
        await self._room.acquire()
        kind = self._chance.choices(list(self._kinds), list(self._kinds.values()))[0]
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
            if answer.status == 200:
                self._history.add(CancelAnswered(at=time.monotonic(), job=job, status=answer.json["status"]))
        self._cancelled.set()
        await self._end(job)

    async def _watch(self, function, chance):
        job = await self._accept(function, chance)
        after, deadline = -1, time.monotonic() + self._patience_s
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
        is_keyed = self._chance.random() < KEYED
        token = None
        while True:
            if token is None or not is_keyed:
                token = self._new_token()
            if wait_s:
                self.blocking.add(token)
            arguments = [token, *self._seconds(function, chance)]
            key = f"key-{token}" if is_keyed else ""
            answer = await self._call(function, token, arguments, key=key, wait_s=wait_s)
            if answer is None:
                await asyncio.sleep(PAUSE_S)
                continue
            if key and self._chance.random() < AGAIN:
                await self._call_again(function, token, arguments, key)
            return self._accepted(answer, token, function, key)

    def _seconds(self, function, chance):
        if function == "long":
            shortest_s, longest_s = self._long_s
            return [round(shortest_s + chance * (longest_s - shortest_s), 3)]
        return [round(0.05 + chance * 0.6, 3)] if function in ("slow", "fan") else []

    def _new_token(self):
        self._tries += 1
        return f"t{self._plan.seed % 100_000}-{self._tries}"

    async def _call(self, function, token, arguments, *, key, wait_s):
        """Call once; return what an accepted call was answered with."""
        path = f"/v1/apps/chaos/functions/{function}/calls?wait_s={wait_s}"
        try:
            answer = await self._api().ask("POST", path, {"args": arguments}, key=key, deadline_s=wait_s + 20)
        except Broken as error:
            self._history.add(Unanswered(at=time.monotonic(), token=token, why=str(error)))
            return None
        if answer.status in (200, 202):
            return answer.json
        self._history.add(Refused(at=time.monotonic(), token=token, status=answer.status, code=answer.json["code"]))
        return None

    async def _call_again(self, function, token, arguments, key):
        """The same call with the same key has to name the same job."""
        told = await self._call(function, token, arguments, key=key, wait_s=0)
        if told is not None:
            self.repeated += 1
            job = told["job_id"].removeprefix("jobs:")
            self._history.add(Accepted(at=time.monotonic(), job=job, token=token, function=function, key=key))

    def _accepted(self, told, token, function, key):
        job = told["job_id"].removeprefix("jobs:")
        self._history.add(Accepted(at=time.monotonic(), job=job, token=token, function=function, key=key))
        self.accepted += 1
        if self.accepted == self._plan.quiet_jobs:
            self.quiet_s = time.monotonic() - self.began
        self._changed.set()
        if told["status"] in TERMINAL:
            self._note_end(job, told)
        return job, told["status"]

    async def _end(self, job):
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            answer = await self._until_answered("GET", f"/v1/jobs/jobs:{job}/outcome?wait_s=20")
            if answer.status == 200:
                self._note_end(job, answer.json)
            if answer.status != 202:  # a job that is not there is found by the checker
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
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = await self._api().ask(method, path, body, deadline_s=40)
                if answer.status < 500 and answer.status != 429:
                    return answer
            except Broken:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(PAUSE_S)
