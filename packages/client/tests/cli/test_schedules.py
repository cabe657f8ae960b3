"""`apothic schedule`: schedules as people see them, and which is meant."""

import pytest


def test_list_shows_words_next_and_last(connected, run, shapes):
    found = run("schedule", "list", "--app", "hello-world")

    line = " ".join(found.out.splitlines()[1].split())
    words = "at 02:30 every day (Europe/Berlin)"
    assert line == f"hello-world::greet active {words} 2026-01-03T01:30:00.000Z succeeded {shapes.TIME}"
    assert connected.asked[0].query == "app=hello-world&limit=200"


def test_no_schedules_say_how_to_make_one(connected, run, shapes):
    connected.script["GET", "/v1/schedules"] = shapes.Answer(document={"items": [], "next_cursor": None})

    found = run("schedule", "list")

    assert (found.code, found.out) == (0, "")
    assert "schedule=Cron(" in found.err


@pytest.mark.parametrize(
    ("verb", "says"),
    [("status", "2026-01-03T01:30:00.000Z"), ("pause", "paused"), ("resume", "active"), ("run", "jobs:")],
)
def test_a_schedule_is_named_by_app_and_function_or_id(connected, run, shapes, verb, says):
    by_name = run("schedule", verb, "hello-world::greet")
    by_id = run("schedule", verb, shapes.SCHEDULE)

    assert (by_name.code, by_name.out) == (0, by_id.out)
    assert says in by_id.out


def test_an_unknown_name_is_not_found_and_near_ones_are_told(connected, run):
    found = run("schedule", "pause", "hello-world.great", "--json")

    assert (found.code, found.error["code"]) == (5, "not_found")
    assert "Did you mean hello-world::greet?" in found.error["detail"]


def test_job_status_names_the_schedule_and_its_time(connected, run, shapes):
    document = shapes.job_document() | {"schedule_id": shapes.SCHEDULE, "due_at": shapes.TIME}
    connected.script["GET", f"/v1/jobs/{shapes.JOB}"] = shapes.Answer(document=document)

    found = run("job", "status", shapes.JOB)

    assert shapes.SCHEDULE in found.out
    assert shapes.TIME in found.out
