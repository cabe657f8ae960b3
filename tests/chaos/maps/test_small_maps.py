"""Maps in a real cloud while its processes and their clients are killed: every item has its one outcome."""

import pytest

from apothic_server.testing.guarantees import guarantee

from ..plan import Plan, Planned
from .run import small_maps_run

pytestmark = pytest.mark.anyio

SEED, ITEMS = 22, 100
FAULTS = ("server", "user", "own-worker", "database")
QUIET, STEP = 80, 180
RATE_MIN = 5.0


@guarantee("G1.1", "job_terminal_once")
@guarantee("G2.1", "overlap_only_when_frozen")
async def test_every_item_of_ten_maps_has_one_outcome_though_everything_is_killed(tmp_path):
    planned = [Planned(QUIET + STEP * number, place, 0.1) for number, place in enumerate(FAULTS)]
    plan = Plan(SEED, QUIET + STEP * len(FAULTS), QUIET, tuple(planned))
    report = await small_maps_run(plan, tmp_path, title="small maps", items=ITEMS, rate_min=RATE_MIN).run()

    assert report.exit_code == 0, str(report)
