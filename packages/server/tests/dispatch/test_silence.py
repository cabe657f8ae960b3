"""Groups whose clients died while they sent items: cancelled after a long silence, and no others are."""

import pytest

from apothic.wire.limits import GROUP_WAITING_BYTES_MAX
from apothic_server.domain.errors import TooMany
from apothic_server.domain.group_views import NewGroup
from apothic_server.domain.groups import SILENCE_KEYED_S, SILENCE_S
from apothic_server.services.dispatch.silence import RETURN_S
from apothic_server.testing.cloud import ScriptedWorker
from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.maps import finish, start_map

pytestmark = pytest.mark.anyio

PACE_S = 50.0


async def pass_awake(cloud, seconds):
    """Let time pass in which the loop of maps looks again and again."""
    loop = next(loop for loop in cloud.inner.loops if loop.name == "maps")
    left = seconds
    while left > 0:
        cloud.live(min(left, PACE_S))
        await loop.step()
        left -= PACE_S


@pytest.fixture
async def group(cloud):
    """A group of which two items came, and not that they were all."""
    await cloud.deploy()
    made = await start_map(cloud, 2, close=False)
    await pass_awake(cloud, RETURN_S)
    return made


async def test_a_group_whose_client_died_while_it_sent_is_cancelled_with_what_was_done(cloud, group):
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    finish(worker, await worker.take())
    await cloud.settle()
    worker.disconnect()

    await pass_awake(cloud, SILENCE_S - RETURN_S - PACE_S)
    before = await group.status()
    await pass_awake(cloud, 2 * PACE_S)
    await cloud.settle()
    await cloud.step()

    view = await group.view()
    assert before == "running"
    assert view.group.status.value in ("cancelling", "cancelled")
    assert view.group.error["code"] == "map_abandoned"
    assert (await group.outcomes())[0] == "succeeded"


@guarantee("G1.2", "no_stuck_jobs")
async def test_its_waiting_items_end_and_its_place_is_free(cloud, group):
    await pass_awake(cloud, SILENCE_S)
    await cloud.settle()
    await cloud.step()

    assert await group.status() == "cancelled"
    assert await group.counts() == {"cancelled": 2}
    assert not cloud.inner.maps.groups


async def test_a_group_that_has_all_its_items_waits_for_ever(cloud, group):
    await group.close(2)

    await pass_awake(cloud, 2 * SILENCE_S)

    assert await group.status() == "running"


async def test_whoever_sends_a_slow_item_or_waits_for_room_is_there(cloud, group):
    for number in range(3):
        await pass_awake(cloud, SILENCE_S / 2)
        await group.add(2 + number, 1)
    async with cloud.inner.database.system_unit() as unit:
        await unit.execute("UPDATE groups SET uploaded_bytes = $2 WHERE id = $1", group.id, GROUP_WAITING_BYTES_MAX)
    for _ in range(3):
        await pass_awake(cloud, SILENCE_S / 2)
        with pytest.raises(TooMany):
            await group.add(5, 1)

    assert await group.status() == "running"


async def test_whoever_reads_outcomes_is_there(cloud, group):
    reader = await cloud.services.groups.outcomes(cloud.actor, group.id, 0)
    for _ in range(6):
        await pass_awake(cloud, SILENCE_S / 2)
        await reader.next(timeout_s=0)
    during = await group.status()
    reader.close()
    await pass_awake(cloud, 2 * SILENCE_S)
    await cloud.step()

    assert during == "running"
    assert await group.status() == "cancelled"


async def test_a_group_with_a_key_waits_a_week_for_somebody_who_goes_on(cloud):
    await cloud.deploy()
    group = await start_map(cloud, 2, close=False, key="night")

    await pass_awake(cloud, 24 * SILENCE_S)
    await cloud.services.groups.create(cloud.actor, ("shop", "work"), NewGroup(key="night"))
    async with cloud.inner.database.system_unit() as unit:
        heard_at = await unit.fetchval("SELECT heard_at FROM groups WHERE id = $1", group.id)

    assert await group.status() == "running"
    assert heard_at == cloud.clock.now()
    assert SILENCE_KEYED_S == 7 * 24 * SILENCE_S


async def test_the_hour_counts_over_a_restart_after_which_everybody_can_come_back(cloud, group, restart):
    await pass_awake(cloud, SILENCE_S / 2)
    await restart()
    cloud.clock.advance(SILENCE_S)
    await cloud.step()
    await pass_awake(cloud, RETURN_S - PACE_S)
    before = await group.status()
    await pass_awake(cloud, 2 * PACE_S)
    await cloud.step()

    assert before == "running"
    assert await group.status() == "cancelled"


async def test_nobody_is_taken_to_be_gone_because_the_machine_slept(cloud, group):
    cloud.clock.advance(2 * SILENCE_S)
    await cloud.step()
    await pass_awake(cloud, RETURN_S - PACE_S)
    before = await group.status()
    await group.add(2, 1)
    await pass_awake(cloud, RETURN_S)

    assert before == "running"
    assert await group.status() == "running"


async def test_progress_tells_how_many_items_came_and_of_how_many(cloud, group):
    await group.close(2)
    worker = await ScriptedWorker(cloud, cpus=1).connect()
    finish(worker, await worker.take())
    await cloud.settle()
    await cloud.advance(2)

    async with cloud.inner.database.system_unit() as unit:
        data = await unit.fetchval(
            "SELECT data FROM events WHERE stream = $1 AND kind = 'group.progress' ORDER BY index DESC LIMIT 1",
            group.id,
        )
    assert '"items": 2' in data
    assert '"total": 2' in data
