"""The programs of `examples/`, run as the pages say."""

import json
import re
import shutil

from .people import ROOT

EXAMPLES = ROOT / "examples"
BUILD_S = 240.0


def test_a_grid_search_ends_with_the_first_good_combination_and_cancels_the_rest(cloud, person):
    ran = person.python(EXAMPLES / "grid_search.py", deadline_s=BUILD_S).ok()
    listed = person.apothic("job", "list", "--app", "grid-search", "--json").ok().json["items"]

    *found, ends = ran.out.splitlines()
    scores = [float(line.rpartition(" ")[2]) for line in found]
    succeeded, cancelled = map(int, re.fullmatch(r"12 jobs: (\d+) succeeded, (\d+) were cancelled", ends).groups())
    assert [score >= 0.96 for score in scores] == [False] * (len(scores) - 1) + [True]
    assert succeeded >= len(scores)
    assert cancelled >= 1
    assert sorted(job["status"] for job in listed) == ["cancelled"] * cancelled + ["succeeded"] * succeeded


def test_the_estimate_is_made_of_all_points(cloud, person):
    ran = person.python(EXAMPLES / "monte_carlo.py").ok()

    assert ran.out == "2,000,000 points: pi is about 3.143\n"


def test_a_thousand_pictures_are_made_and_those_that_fail_are_told(cloud, person):
    ran = person.python(EXAMPLES / "pictures.py", deadline_s=BUILD_S).ok()

    made, failed = ran.out.splitlines()
    assert re.fullmatch(r"960 pictures, [0-9,]+ bytes as PNG", made)
    assert failed == "40 failed; the first: item 0, picture 0 is 0 pixels wide"


def test_texts_become_vectors_in_batches_for_single_calls_and_for_a_map(cloud, person):
    ran = person.python(EXAMPLES / "embeddings.py").ok()
    listed = person.apothic("job", "list", "--app", "embeddings", "--limit", 200, "--json").ok().json["items"]
    written = [line for job in listed[:200] for line in cloud.lines(job["job_id"]) if line.startswith("a batch of")]

    assert ran.out.splitlines() == [
        "most like the question: 'the queue is empty'",
        "1000 vectors of 64 numbers; item 1000 failed: 'no' is too short",
    ]
    assert "a batch of 32" in written


def test_the_nightly_report_counts_the_hours_that_a_day_has(cloud, person):
    ran = person.python(EXAMPLES / "nightly_report.py").ok()
    status = person.apothic("schedule", "status", "nightly-report::report", "--json").ok().json

    assert re.findall(r"'hours': (\d+)", ran.out) == ["24", "23", "25"]
    assert (status["cron"], status["timezone"], len(status["next"])) == ("30 2 * * *", "Europe/Berlin", 5)


def test_the_package_runs_with_its_modules_and_its_packages(cloud, person):
    folder = person.home / "sales"
    shutil.copytree(EXAMPLES / "sales", folder)
    deployed = person.apothic("deploy", "sales/app.py", "--json", cwd=folder).ok().json
    by_file = person.apothic("run", "-q", "sales/app.py::summary", "--minimum", 1000, cwd=folder, deadline_s=BUILD_S)
    by_name = person.apothic("run", "-q", "summary", "--app-name", "sales", cwd=folder)

    assert [file["path"] for file in deployed["files"]] == [
        f"sales/{name}.py" for name in ("__init__", "app", "figures", "orders")
    ]
    assert json.loads(by_file.ok().out) == {"count": 2, "sum": 5250, "median": 2625.0, "refused": 1}
    assert json.loads(by_name.ok().out) == {"count": 3, "sum": 6240, "median": 1250.0, "refused": 1}
