"""Workers of other machines behind ways that break, and lost answers: nothing is lost, nothing runs twice."""

import pytest

from apothic_server.testing.guarantees import guarantee

from .plan import Plan, Planned
from .run import Run

pytestmark = pytest.mark.anyio

SEED, JOBS, GRACE_S = 21, 250, 4.0
BEYOND_S = GRACE_S + 3.5
FAULTS = (
    ("clients-lose", 0.7, False),
    ("cut", 0.1, True),
    ("freeze-worker", BEYOND_S, False),
    ("drain", 0.0, False),
    ("hang", BEYOND_S, False),
    ("lose", 0.7, False),
)
"""What is done, for how many seconds, and whether the connections that it met are reset in the end."""

RATE_MIN = 5.0


@guarantee("G1.3", "stale_attempt_rejected")
@guarantee("G2.5", "drain_no_lost_no_penalty")
@guarantee("G2.7", "slots_never_leak")
@guarantee("G3.2", "self_fence_on_partition")
@guarantee("G6.1", "idem_crash_every_point")
async def test_jobs_survive_cut_frozen_and_drained_workers_and_lost_answers(tmp_path):
    first, step = JOBS // 5, JOBS // 10
    planned = [Planned(first + step * number, *what) for number, what in enumerate(_after_a_moment())]
    run = Run(
        Plan(SEED, JOBS, first, tuple(planned), GRACE_S),
        tmp_path,
        title="partitions",
        rate_min=RATE_MIN,
        is_spread=True,
    )
    report = await run.run()

    assert report.exit_code == 0, str(report)
    assert run.clients.lost > 0
    assert run.load.repeated > 0


def _after_a_moment():
    return ((place, 0.1, lasts_s, resets) for place, lasts_s, resets in FAULTS)
