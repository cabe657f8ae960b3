"""What benchmarks make of what they have measured, and that each of them can be started and is described."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_"))
LOAD = """
import runpy, sys
for path in sys.argv[1:]:
    print(runpy.run_path(path, run_name="loaded")["main"].__doc__)
"""


@pytest.fixture
def verdict(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_verdict")


def test_each_benchmark_loads_and_is_in_the_table_of_benchmarks():
    command = [sys.executable, "-c", LOAD, *map(str, SCRIPTS)]
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS, env={"PYTHONPATH": BENCHMARKS})
    rows = [line.split("`")[1] for line in (BENCHMARKS / "README.md").read_text().splitlines() if ".py` | " in line]

    assert (loaded.stderr, loaded.stdout.count("Measure, print")) == ("", len(SCRIPTS))
    assert {path.name for path in SCRIPTS} <= set(rows)


@pytest.mark.parametrize(
    ("figure", "bounds", "word"),
    [
        (40.0, (50.0, 30.0), "met"),
        (20.0, (50.0, 30.0), "met, the stretch too"),
        (60.0, (50.0, 30.0), "**missed**"),
        (40.0, (None, 30.0), "**missed**"),
        (20.0, (None, 30.0), "met"),
    ],
)
def test_a_figure_is_held_against_its_goals(verdict, figure, bounds, word):
    goal = verdict.at_most("P0", "it", figure, *bounds)

    assert (goal.word, goal.figure, goal.ratio) == (word, f"{figure:.0f} µs", "")


def test_beside_a_peer_the_multiple_of_it_is_held_against_the_goals(verdict):
    met = verdict.at_least("P0", "it", 3_000.0, 10, 40, beside=("C", 250.0))
    missed = verdict.at_least("P0", "it", 3_000.0, 15, beside=("C", 250.0))
    unknown = verdict.at_least("P0", "it", 3_000.0, 15, beside=("C", None))

    assert met.row() == "| P0 | it | 3,000/s | C: 250/s | 12.00 | ≥ 10 | ≥ 40 | met |"
    assert (missed.is_met, unknown.is_met, unknown.word) == (False, None, "not measured")


def test_a_peer_far_below_its_reference_to_both_yardsticks_makes_a_run_invalid(verdict):
    contenders = importlib.import_module("_contenders")
    peer = contenders.Contender("C", "a peer", "none", "peer", reference_us=2_000, e_us=20, f_us=100)

    assert verdict.invalid_reasons({"E": 20.0, "F": 100.0, "C": 2_800.0}, [peer]) == []
    assert verdict.invalid_reasons({"E": 20.0, "F": 200.0, "C": 3_000.0}, [peer]) == []
    assert verdict.invalid_reasons({"E": 20.0, "F": 100.0, "C": 3_000.0}, [peer]) == [
        "C reached 0.67 to E, 0.67 to F of its reference ratio, 0.7 is needed"
    ]


def test_one_table_holds_the_goals_of_all_runs_and_says_which_of_them_count(verdict, monkeypatch):
    table = importlib.import_module("_table")
    goal = verdict.at_most("P0", "it", 40.0, 50.0)
    fields = {name: getattr(goal, name) for name in goal.__slots__}
    quiet = {"machine": "2 cores", "invalid": [], "not_measured": {}, "goals": [fields]}
    busy = {**quiet, "invalid": ["others ran"], "not_measured": {"C": "no Redis"}}

    text = table.together({"call": quiet, "map": busy})

    assert [line.split("|")[-2:-1] for line in text.splitlines()[2:4]] == [
        [" `call`, valid "],
        [" `map`, invalid and incomplete "],
    ]
    assert text.splitlines()[-1] == "* `map`: 2 cores. invalid: others ran. incomplete: C (no Redis)."
