"""Whatever becomes of chunks, in whatever order, with restarts in between: each item of a group ends exactly once."""

import asyncio
import random

import pytest

from apothic.wire.functions import FunctionSpec
from apothic.wire.link import LogLine, RunnerEnded, Started
from apothic.wire.maps import ItemOutput
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, numbers_of, start_map

pytestmark = pytest.mark.anyio

ITEMS = 400
STEPS = 40


class Chaos:
    """A worker that executes items, dies, gives back and forgets as the dice say."""

    def __init__(self, cloud, group, dice):
        self.cloud, self.group, self.dice = cloud, group, dice
        self.held = {}
        self.dead = set()
        self.worker = None

    async def join(self):
        self.worker = await ScriptedWorker(self.cloud, name=f"w{self.dice.random()}", cpus=3).connect()

    async def take(self):
        """Take what was granted; no item may be under way twice."""
        await self.cloud.settle()
        while self.worker.received:
            name, item = self.worker.received.popleft()
            if name == "assign" and item.runner not in self.dead:
                numbers = numbers_of(item)
                under_way = {number for other in self.held.values() for number in numbers_of(other)}
                assert not under_way & set(numbers), "an item is under way twice"
                self.held[item.job, item.fence] = item
                self.worker.report({"started": [Started(item.job, item.fence)]})

    async def act(self):
        dice = self.dice
        deed = dice.choices(
            ["work", "fail", "print", "back", "die", "vanish", "restart", "wait"], [8, 3, 1, 3, 1, 1, 1, 1]
        )
        match deed[0]:
            case "vanish":
                self.held.clear()
                self.cloud.inner.board.fleet.workers[self.worker.incarnation].lease_expires_at = 0.0
                self.worker.disconnect()
                await self.cloud.advance(60)
                await self.join()
            case "restart":
                await self.take()
                await self.restart()
                await self.worker.connect(*self.held.values())
                await self.cloud.step()
            case "wait":
                await self.worker.heartbeat(*self.held.values())
                await self.cloud.advance(dice.uniform(0.1, 10))
                await self.worker.heartbeat(*self.held.values())
            case what if self.held:
                item = self.held.pop(dice.choice(list(self.held)))
                self.end(what, item, numbers_of(item))

    def end(self, what, item, numbers):
        dice = self.dice
        count = len(numbers)
        match what:
            case "fail":
                finish(self.worker, item, failed=dice.sample(numbers, dice.randint(1, min(3, count))))
            case "print":
                lines = [LogLine("stdout", 0, "x")]
                finish(self.worker, item, output=[ItemOutput(dice.randrange(count), lines)])
            case "back" if count > 1:
                finish(self.worker, item, done=dice.randrange(count))
            case "die" if count > 1:
                finish(
                    self.worker, item, done=dice.randrange(count), outcome=dice.choice(["failed", "timed_out", "lost"])
                )
                self.dead.add(item.runner)
                self.worker.report({"runner_ended": [RunnerEnded(item.runner, "died")]})
                gone = [key for key, other in self.held.items() if other.runner == item.runner]
                for key in gone:
                    del self.held[key]
            case _:
                finish(self.worker, item)


@guarantee("G1.1", "job_terminal_once")
@pytest.mark.parametrize("seed", range(4))
async def test_each_item_ends_once_whatever_happens(cloud, restart, seed):
    await cloud.deploy("shop", FunctionSpec("work", qualname="work", max_containers=3, max_retries=seed % 2))
    group = await start_map(cloud, ITEMS, close=False)
    chaos = Chaos(cloud, group, random.Random(seed))
    chaos.restart = restart
    await chaos.join()
    ended = {}
    for _ in range(STEPS):
        await chaos.take()
        await chaos.act()
        await cloud.settle()
        found = await group.outcomes()
        assert found.items() >= ended.items(), "an end has changed"
        ended = {item: status for item, status in found.items() if status == "succeeded"}
        assert sum((await group.view()).counts.values()) == ITEMS
    await group.close(ITEMS)
    async with asyncio.timeout(30):
        while await group.status() == "running":
            await chaos.take()
            for item in list(chaos.held.values()):
                finish(chaos.worker, item)
            chaos.held.clear()
            await cloud.settle()
            await chaos.worker.heartbeat()
            await cloud.advance(2)

    found = await group.outcomes()
    assert sorted(found) == list(range(ITEMS))
    assert await group.counts() == {status: list(found.values()).count(status) for status in set(found.values())}
