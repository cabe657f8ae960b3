"""`apothic job list`."""

import json
import re

import pytest


def entry(shapes, number):
    return {
        "job_id": f"{shapes.JOB[:-1]}{number}", "app": "hello-world", "function": "greet",
        "deployment_id": shapes.DEPLOYMENT, "status": "running", "attempt": 1, "created_at": shapes.TIME,
        "started_at": shapes.TIME, "finished_at": None, "waiting_reason": None,
    }  # fmt: skip


def test_job_list_goes_on_over_empty_pages_up_to_the_limit(connected, run, shapes):
    pages = {"": ([1], "a"), "a": ([], "b"), "b": ([2, 3], "c")}

    def answer(_, asked):
        cursor = dict(pair.split("=") for pair in asked.query.split("&")).get("cursor", "")
        numbers, following = pages[cursor]
        return shapes.Answer(document={"items": [entry(shapes, n) for n in numbers], "next_cursor": following})

    connected.script["GET", "/v1/jobs"] = answer

    found = run("job", "list", "--limit", "3", "--app", "hello-world", "--status", "running")

    assert [line.split()[1:3] for line in found.out.splitlines()[1:]] == [["hello-world::greet", "running"]] * 3
    assert connected.asked[0].query == "app=hello-world&status=running&limit=3"
    assert connected.asked[2].query.endswith("limit=2&cursor=b")


def test_job_list_for_programs(connected, run, shapes):
    connected.script["GET", "/v1/jobs"] = shapes.Answer(
        document={"items": [entry(shapes, 1), entry(shapes, 2)], "next_cursor": None}
    )

    assert run("job", "list", "--json").json == {"items": [entry(shapes, 1), entry(shapes, 2)]}
    lines = run("job", "list", "--jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == [entry(shapes, 1), entry(shapes, 2)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("10m", r"[-0-9]{10}T[0-9.%3A]+Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12%3A00%3A00.000Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10%3A00%3A00.000Z"),
    ],
)
def test_since_takes_how_long_ago_or_when(connected, run, shapes, given, sent):
    connected.script["GET", "/v1/jobs"] = shapes.Answer(document={"items": [], "next_cursor": None})

    assert run("job", "list", "--since", given).code == 0
    assert re.fullmatch(f"since={sent}&limit=50", connected.asked[0].query)


@pytest.mark.parametrize("given", ["", "ten", "10", "10w", "2026-01-31", "999999999d"])
def test_a_wrong_since_is_a_usage_error(connected, run, given):
    found = run("job", "list", "--since", given)

    assert (found.code, found.out, connected.asked) == (2, "", [])
