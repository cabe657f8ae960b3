"""What a runner gets of the processors while its own are lent (G2.7)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from apothic.wire import link
from apothic_server.testing.guarantees import guarantee
from apothic_worker.limits import SHARES, Bounds, Limits, machine_hierarchies
from apothic_worker.share import Share
from apothic_worker.testing.scripted_server import ScriptedServer

pytestmark = pytest.mark.anyio


@guarantee("G2.7", "slots_never_exceeded")
async def test_a_runner_comes_after_all_others_while_its_processors_are_lent(
    cloud: ScriptedServer, group_file: Callable[[str, str], Path | None]
):
    runner = await cloud.started_runner(cloud.deploy({"app.py": "def nothing(): pass"}), "nothing")
    await cloud.call(runner)
    (file, low, usual), *_ = [
        (found, low, usual) for name, low, usual in SHARES.values() if (found := group_file(runner, name)) is not None
    ]

    async def changed(*, is_lent: bool) -> str:
        before = file.read_text().strip()
        await cloud.send(lent=[link.Lent(runner, is_lent=is_lent)])
        async with asyncio.timeout(20):
            while file.read_text().strip() == before:
                await cloud.round_trip()
        return file.read_text().strip()

    assert file.read_text().strip() == usual
    assert [await changed(is_lent=True), await changed(is_lent=False)] == [low, usual]


async def test_a_short_wait_changes_nothing_and_a_runner_that_is_gone_is_no_matter(tmp_path: Path):
    limits = Limits(machine_hierarchies(), tag="test-share", record=tmp_path / "record")
    group = limits.group("g", Bounds(1.0, 64))
    name, _, usual = SHARES[group.versions["cpu"]]
    share = Share()
    share.group = group
    try:
        share.lend(is_lent=True)
        share.lend(is_lent=False)
        kept = (group.folders["cpu"] / name).read_text().strip()
        assert group.remove()
        share._set(is_low=True)
    finally:
        share.close()
        limits.close()

    assert kept == usual


def test_all_runners_together_get_no_more_processors_than_are_offered(tmp_path: Path):
    limits = Limits(machine_hierarchies(), tag="test-cap", record=tmp_path / "record")
    limits.cap(1.5)
    group = limits.group("g", Bounds(1.0, 64))
    name = "cpu.max" if group.versions["cpu"] == 2 else "cpu.cfs_quota_us"
    quota = (group.folders["cpu"].parent / name).read_text().split()[0]
    group.remove()
    limits.close()

    assert quota == "150000"
