"""A real cloud under load while its processes are killed: nothing is lost, nothing is stuck, nothing ends twice."""

import pytest

from apothic_server.testing.guarantees import guarantee

from .plan import KILLS, make_plan
from .run import Run

pytestmark = pytest.mark.anyio

SEED = 20
JOBS, FAULTS = 1_000, 20
RATE_MIN = 5.0
"""Calls a second before the first kill; less than a long run asks for, because machines that run tests are busy."""


@guarantee("G1.1", "job_terminal_once")
@guarantee("G1.2", "no_stuck_jobs")
@guarantee("G2.1", "overlap_only_when_frozen")
@guarantee("G2.2", "at_most_once_no_second_grant")
@guarantee("G2.7", "slots_never_leak")
@guarantee("G4.2", "no_process_left")
@guarantee("G4.4", "no_leaked_resources")
@guarantee("G5.2", "watch_model_check")
async def test_a_thousand_jobs_survive_twenty_kills(tmp_path):
    plan = make_plan(SEED, jobs=JOBS, faults=FAULTS)
    report = await Run(plan, tmp_path, title="small", rate_min=RATE_MIN).run()

    assert report.exit_code == 0, str(report)
    assert {fault.place for fault in report.faults} == set(KILLS)
