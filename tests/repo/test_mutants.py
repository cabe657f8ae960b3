"""The planted faults can be planted: `make mutants` would otherwise find that out an hour later."""

import re
import runpy

import pytest

from apothic_server.testing.guarantees import Promise, claims

from .tracked import ROOT

TOOL = runpy.run_path(str(ROOT / "tools" / "mutants.py"))
MUTANTS = TOOL["catalogue"](ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{one.promise.test}: {one.breaks}" for one in MUTANTS])
def test_a_fault_stands_at_one_place_and_its_promise_has_tests(mutant):
    source = (ROOT / mutant.file).read_text("utf-8")

    assert source.count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.tests
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutant.tests)


SECTIONS = ("1", "2", "3", "4", "5", "6", "14", "15")
"""Sections of docs/guarantees.md whose proven promises must have planted faults."""


def test_every_proven_promise_of_the_core_has_a_planted_fault():
    page = (ROOT / "docs/mutants.md").read_text("utf-8")
    without = {Promise(*row) for row in re.findall(r"^\| (G[0-9.]+) \| `(\w+)` \| [^|]+ \|$", page, re.MULTILINE)}
    claimed = {claim.promise for claim in claims(ROOT)}
    proven = {one for one in claimed if one.id[1:].partition(".")[0] in SECTIONS}
    planted = {mutant.promise for mutant in MUTANTS}

    assert sorted(proven - planted - without) == []
    assert sorted(planted - claimed) == []
    assert sorted(without & planted) == []


def test_a_run_of_some_faults_keeps_the_other_rows_of_the_table():
    first, second, third = map(TOOL["_row_head"], MUTANTS[:3])
    gone = "| G0.1 | `gone` | a fault | killed | 3 | old |"
    before = f"{second}SURVIVED | 1 | old |\n{first}SURVIVED | 2 | old |\n{gone}"

    table = TOOL["_table"](
        MUTANTS, {second: f"{second}killed | 4 | new |", third: f"{third}killed | 5 | new |"}, before
    )

    assert table.splitlines()[0] == f"2 of {len(MUTANTS)} planted faults found."
    assert table.splitlines()[4:] == [
        f"{first}SURVIVED | 2 | old |",
        f"{second}killed | 4 | new |",
        f"{third}killed | 5 | new |",
    ]
