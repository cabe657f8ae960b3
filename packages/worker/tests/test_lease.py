"""When a worker that is cut off stops user code."""

import pytest

from apothic_worker.lease import Stage, next_check_s, stage


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
