"""When a worker that is cut off stops user code."""

import math

import pytest

from apothic_server.testing.guarantees import guarantee
from apothic_worker.lease import Stage, is_abandoned, next_check_s, stage


@guarantee("G3.2", "self_fence_on_partition")
@pytest.mark.parametrize(
    ("age_s", "found"),
    [(0, Stage.LIVE), (19.9, Stage.LIVE), (20, Stage.TERM), (24.9, Stage.TERM), (25, Stage.KILL), (99, Stage.KILL)],
)
def test_the_default_grace_is_cut_at_20_and_25_seconds(age_s, found):
    assert stage(age_s, 30.0) is found


@pytest.mark.parametrize("grace_s", [0.5, 3.0, 30.0, 86_400.0])
def test_each_check_leads_to_the_next_stage_before_the_lease_ends(grace_s):
    age_s, seen = 0.0, [stage(0.0, grace_s)]
    while seen[-1] is not Stage.KILL:
        age_s += next_check_s(age_s, grace_s) + 1e-9
        seen.append(stage(age_s, grace_s))

    assert seen == [Stage.LIVE, Stage.TERM, Stage.KILL]
    assert age_s < grace_s
    assert next_check_s(age_s, grace_s) == math.inf


@pytest.mark.parametrize(
    ("away_s", "executes", "owes", "ends"),
    [
        (59.9, False, False, False),
        (60.0, False, False, True),
        (60.0, False, True, False),
        (86_399.0, False, True, False),
        (86_400.0, False, True, True),
        (1e9, True, False, False),
        (1e9, True, True, False),
    ],
)
def test_a_worker_beside_its_server_ends_when_nothing_waits_for_it(away_s, executes, owes, ends):
    assert is_abandoned(away_s, executes=executes, owes=owes) is ends
