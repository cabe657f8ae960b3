"""The benchmark of maps, small and without its peers: it measures, and says what came of its goals."""

import json
import sys

from .people import ROOT


def test_the_benchmark_of_maps_runs(stranger):
    told = stranger.home / "told.json"
    command = [ROOT / "benchmarks" / "map.py", "--quick", "--calls", "64", "--json", told]
    stranger.run(sys.executable, *command, deadline_s=180).ok()

    result = json.loads(told.read_text())
    goals = {goal["name"]: goal for goal in result["goals"]}
    assert set(result["rates_per_s"]) == {"ours", "slow", "P", "items", "16 callers", "64 callers"}
    assert set(result["not_measured"]) == {"C", "C*", "RT", "Q", "DB"}
    assert goals["P7"]["beside"].startswith("ours: ")
    assert goals["P4"]["is_met"] is None
    assert result["invalid"][0] == "a smoke run"
