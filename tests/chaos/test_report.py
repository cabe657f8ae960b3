"""A run that broke nothing proves nothing, and says so."""

import pytest

from .checker import Violation
from .faults import Done
from .plan import KILLS, SEED_MAX, make_plan
from .report import Report


def report(*, hits=8, misses=0, rate=60.0, violations=()):
    faults = [Done(1.0, "server", 7, 3, True)] * hits + [Done(1.0, "user", 0, 0, False)] * misses
    return Report(
        title="t", seed=1, commit="c", jobs=9, planned=10, faults=faults, quiet_rate=rate, violations=list(violations)
    )


def test_a_run_with_enough_faults_and_load_is_good():
    assert report().exit_code == 0
    assert str(report()).endswith("verdict    GOOD")


@pytest.mark.parametrize("bad", [{"hits": 7}, {"hits": 7, "misses": 3}, {"rate": 49.0}])
def test_a_run_with_too_few_faults_or_too_little_load_is_invalid(bad):
    assert report(**bad).exit_code == 2
    assert "INVALID" in str(report(**bad))


def test_a_violation_is_red_whatever_else_happened():
    found = report(hits=0, violations=[Violation("I1", "j", "is gone")])

    assert found.exit_code == 1
    assert "I1 j: is gone" in str(found)
    assert str(found).endswith("verdict    VIOLATED")


def test_a_seed_gives_one_plan_with_every_place_equally_often():
    plan = make_plan(5, jobs=1000, faults=40)

    assert plan == make_plan(5, jobs=1000, faults=40) != make_plan(6, jobs=1000, faults=40)
    assert {place: sum(one.place == place for one in plan.faults) for place in KILLS} == dict.fromkeys(KILLS, 10)
    assert all(plan.quiet_jobs <= one.after_jobs < 1000 for one in plan.faults)
    assert plan.random("load").random() == plan.random("load").random() != plan.random("faults").random()


@pytest.mark.parametrize("seed", [-1, SEED_MAX + 1])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(ValueError, match="a seed is"):
        make_plan(seed, jobs=1, faults=1)
