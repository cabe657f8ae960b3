"""The power goes while a real cloud works: what was answered is on its disk, and a cloud starts there."""

import os

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import needs

from .powercut import Disk, NoPower, PowerCuts

pytestmark = pytest.mark.anyio

SEED, JOBS = 23, 150
AFTER_S = (1.5, 2.5)


@pytest.fixture
def power(tmp_path):
    """A folder where power can be cut."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    needs("mkfs.ext4", package="e2fsprogs")
    (probe := tmp_path / "probe").mkdir()
    try:
        disk = Disk(probe)
        disk.attach()
    except NoPower as error:
        pytest.skip(f"this machine lets nobody mount a file system: {error}")
    disk.detach()
    (place := tmp_path / "cut").mkdir()
    return place


@guarantee("G14.1", "acked_survives_power_cut")
async def test_what_was_answered_survives_a_power_cut(power):
    cuts = PowerCuts(SEED, power, cuts=1, jobs=JOBS, after_s=AFTER_S)
    report = await cuts.run()

    assert report.exit_code == 0, str(report)
    assert report.jobs > 0
