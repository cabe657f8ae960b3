"""Background loops: a step that fails or hangs, and the watchdog that starts a stuck loop anew, on the test's clock."""

import asyncio

import pytest
from structlog.testing import capture_logs

from apothic_server.domain.errors import Unavailable
from apothic_server.loops.base import TICKS_MISSED, Loop, Watchdog
from apothic_server.testing.guarantees import guarantee

pytestmark = pytest.mark.anyio

INTERVAL_S, DEADLINE_S = 10.0, 0.0
SILENT_S = DEADLINE_S + TICKS_MISSED * INTERVAL_S


class Stage:
    """A loop whose first `stuck` steps never end, not even when they are cancelled."""

    def __init__(self, stuck=1):
        self.now = 100.0
        self.stuck = stuck
        self.begun = asyncio.Semaphore(0)
        self.gates = [asyncio.Event() for _ in range(stuck)]
        self.ended = asyncio.Semaphore(0)
        self.steps = 0
        self.loop = Loop("odd", self.step, interval_s=INTERVAL_S, deadline_s=DEADLINE_S, clock=lambda: self.now)
        self.watchdog = Watchdog([self.loop])

    async def step(self):
        self.steps += 1
        self.begun.release()
        if self.steps <= self.stuck:
            await self.hang(self.gates[self.steps - 1])
            self.ended.release()

    async def hang(self, gate):
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    async def close(self):
        for gate in self.gates:
            gate.set()
        await self.loop.stop()

    async def begins(self):
        await asyncio.wait_for(self.begun.acquire(), 10)

    async def passes(self, seconds):
        self.now += seconds
        with capture_logs() as logs:
            await self.watchdog.step()
        return logs


@pytest.fixture
async def stage():
    made = Stage()
    made.loop.start()
    await made.begins()
    yield made
    await made.close()


@guarantee("G14.5", "loops_watchdog")
async def test_a_loop_that_misses_three_ticks_is_told_with_its_stack_and_started_anew(stage):
    early = await stage.passes(SILENT_S)
    was_ok = stage.loop.check().ok
    (told,) = await stage.passes(0.1)
    reported = stage.loop.check()
    await stage.begins()

    assert (early, was_ok) == ([], True)
    assert (told["event"], told["loop"], told["log_level"]) == ("loop.stuck", "odd", "error")
    assert [line.split()[1] for line in told["stack"]][:4] == ["_run", "_guarded_step", "step", "hang"]
    assert (reported.ok, reported.detail) == (False, "missed three ticks and was started anew")
    assert stage.loop.check().ok
    assert stage.steps == 2


@guarantee("G14.5", "loops_watchdog")
async def test_a_stuck_loop_is_reported_before_the_watchdog_has_looked(stage):
    stage.now += SILENT_S + 0.1

    assert stage.loop.check().ok is False


@guarantee("G14.5", "loops_watchdog")
async def test_a_step_that_ends_after_its_loop_was_started_anew_does_not_speak_for_the_new_one():
    stage = Stage(stuck=2)
    stage.loop.start()
    await stage.begins()
    try:
        again, healthy = await _left_behind(stage)
    finally:
        await stage.close()

    assert [line["event"] for line in again] == ["loop.stuck"]
    assert healthy == []
    assert stage.steps == 3


async def _left_behind(stage):
    """Start the loop anew, let the step that was left end, and return what the watchdog says of the stuck new one."""
    await stage.passes(SILENT_S + 1)
    await stage.begins()
    await stage.passes(SILENT_S)
    stage.gates[0].set()
    await asyncio.wait_for(stage.ended.acquire(), 10)
    again = await stage.passes(1)
    await stage.begins()
    return again, await stage.passes(1)


async def test_a_loop_that_is_not_started_or_was_stopped_is_not_stuck():
    stage = Stage(stuck=0)
    before = await stage.passes(10_000)
    stage.loop.start()
    await stage.begins()
    await stage.loop.stop()
    after = await stage.passes(10_000)

    assert before == after == []


@guarantee("G14.5", "loops_watchdog")
async def test_every_loop_of_a_server_is_watched_and_shows_in_readiness(cloud):
    *loops, watchdog = cloud.inner.loops
    checks = await cloud.services.health.checks()

    assert watchdog.name == "watchdog"
    assert watchdog.step.__self__.loops == tuple(loops)
    assert {f"loop {loop.name}" for loop in cloud.inner.loops} <= set(checks)
    assert {"role", "sweep", "retention", "disk"} <= {loop.name for loop in loops}


async def test_failures_in_a_row_are_logged_ever_more_rarely_and_a_store_that_is_away_not_at_all():
    errors = [RuntimeError("odd")] * 9 + [Unavailable("away")] * 9

    async def step():
        if errors:
            raise errors.pop(0)
        done.set()

    done = asyncio.Event()
    loop = Loop("failing", step, interval_s=0.0)
    with capture_logs() as logs:
        loop.start()
        await asyncio.wait_for(done.wait(), 10)
        await loop.stop()

    assert [line["failures"] for line in logs if line["event"] == "loop.failed"] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("now", "interval_s", "wait_s"), [(100.3, 1.0, 0.7), (100.0, 1.5, 1.5), (100.49, 5.0, 4.51), (100.3, 0.3, 0.3)]
)
async def test_loops_at_rest_step_at_the_same_moments(now, interval_s, wait_s):
    stage = Stage()
    loop = Loop("even", stage.step, interval_s=interval_s, clock=lambda: now)
    assert loop._until_tick() == pytest.approx(wait_s)
