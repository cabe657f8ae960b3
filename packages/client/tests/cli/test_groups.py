"""`apothic group`: how far maps are, as people read it."""

import json

import pytest

ENDS = [("succeeded", 0), ("failed", 100), ("cancelled", 103)]


def test_groups_are_listed_with_what_ended_and_failed(connected, run, shapes):
    found = run("group", "list", "--app", "hello-world", "--status", "running", "--limit", "3")

    assert found.out.splitlines() == [
        f"GROUP{' ' * 30}FUNCTION            STATUS   ENDED    FAILED  CREATED{' ' * 19}FINISHED",
        f"{shapes.GROUP}  hello-world::greet  running  4 of 10  1       {shapes.TIME}  -",
    ]
    assert connected.last("GET", "/v1/groups").query == "app=hello-world&status=running&limit=3"


def test_without_groups_the_list_says_so(connected, run, shapes):
    connected.script["GET", "/v1/groups"] = shapes.page()

    assert (run("group", "list").err, run("group", "list", "--json").json) == ("No such groups.\n", {"items": []})


def test_the_status_tells_how_far_it_is_and_why_it_waits(connected, run, shapes):
    error = {"type": "apothic.Stopped", "message": "3 items failed"}
    changes = {"waiting_reason": "no worker", "error": error, "key": "night", "stop_after": 3}
    connected.script["GET", f"/v1/groups/{shapes.GROUP}"] = shapes.Answer(document=shapes.group_document(**changes))

    assert run("group", "status", shapes.GROUP).out.splitlines() == [
        f"group          {shapes.GROUP}",
        "function       hello-world::greet",
        "status         running",
        "items          4 of 10 ended, 1 running, 1 failed",
        "waits because  no worker",
        "error          apothic.Stopped: 3 items failed",
        "key            night",
        "stops after    3 failed items",
        f"created        {shapes.TIME}",
        f"deployment     {shapes.DEPLOYMENT}",
    ]


def test_watching_tells_progress_and_ends_as_the_group_did(connected, run, shapes):
    found = run("group", "watch", shapes.GROUP)

    assert found.out.splitlines() == [
        "group.created  running",
        "group.progress  4 of 10 so far ended, 1 running, 1 failed",
        "group.progress  10 of 10 ended, 1 failed",
        "group.end  failed, 10 of 10 ended, 1 failed",
    ]
    assert found.code == 100


@pytest.mark.parametrize(("status", "code"), ENDS)
def test_watching_ends_with_the_code_of_the_group(connected, run, shapes, status, code):
    connected.script["GET", f"/v1/groups/{shapes.GROUP}/events"] = shapes.stream((9, "group.end", {"status": status}))

    found = run("group", "watch", shapes.GROUP, "--last-index", "8", "--json")

    assert found.code == code
    assert found.json["status"] == status
    assert found.json["last_index"] == 9
    assert "after=8" in connected.last("GET", f"/v1/groups/{shapes.GROUP}/events").query


def test_some_items_are_cancelled(connected, run, shapes):
    path = f"/v1/groups/{shapes.GROUP}/cancel"

    found = run("group", "cancel", shapes.GROUP, "--item", "3", "--item", "5")
    assert (found.out, found.err) == ("", f"2 items of {shapes.GROUP} were asked to end\n")
    assert json.loads(connected.last("POST", path).body) == {"items": [3, 5]}
    assert run("group", "cancel", shapes.GROUP).out == f"{shapes.GROUP} is cancelling\n"
    assert json.loads(connected.last("POST", path).body) == {"items": None}


def test_jobs_of_a_group_are_listed(connected, run, shapes):
    run("job", "list", "--group", shapes.GROUP)

    assert f"group={shapes.GROUP.replace(':', '%3A')}" in connected.last("GET", "/v1/jobs").query


def test_an_id_of_something_else_is_refused_before_anything_is_asked(connected, run, shapes):
    found = run("group", "status", shapes.JOB)

    assert found.code == 2
    assert "groups:01" in found.err
    assert connected.asked == []
