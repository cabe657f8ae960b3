"""The planted faults can be planted: `make mutants` would otherwise find that out an hour later."""

import runpy

import pytest

from .tracked import ROOT

MUTANTS = runpy.run_path(str(ROOT / "tools" / "mutants.py"))["catalogue"](ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{one.promise.test}: {one.breaks}" for one in MUTANTS])
def test_a_fault_stands_at_one_place_and_its_promise_has_tests(mutant):
    source = (ROOT / mutant.file).read_text("utf-8")

    assert source.count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.tests
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests)
