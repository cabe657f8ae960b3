"""User code that goes wrong in every way: each has the answer that docs/reference/hostile-code.md states."""

import pytest

from .clouds import until
from .people import ROOT

APP = "hostile"
PAGE = ROOT / "docs" / "reference" / "hostile-code.md"


@pytest.fixture(scope="module")
def hostile(cloud, person):
    """The app of hostile_app.py, deployed; returns its name."""
    person.python(person.copy("tests/system/hostile_app.py")).ok()
    return APP


@pytest.fixture
def serves(cloud, hostile):
    """After the test: the cloud still executes calls of the same app."""
    yield
    assert cloud.outcome(cloud.spawn(hostile, "echo", "fine"))["result"] == "fine"


def answers():
    """Return the rows of the page: function, arguments, and what it says of the end."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0].strip("`"), row[2].strip("`")) for row in rows]


def test_each_function_of_the_app_has_an_answer_and_each_answer_a_function():
    source = (ROOT / "tests/system/hostile_app.py").read_text()
    functions = {line.split("(")[0].removeprefix("def ") for line in source.splitlines() if line.startswith("def ")}

    assert {call.split("(")[0] for call, _ in answers()} == functions - {"echo", "used_disk"}


@pytest.mark.usefixtures("serves")
@pytest.mark.parametrize(("call", "answer"), answers())
def test_the_stated_answer_is_given(cloud, hostile, call, answer):
    name, _, rest = call.rstrip(")").partition("(")
    arguments = [int(part) if part.isdigit() else part.strip('"') for part in rest.split(",") if part]
    machine = cloud.request("GET", "/v1/workers").json["items"][0]["machine"]
    if "out_of_memory" in answer and "memory" not in machine["enforced"]:
        pytest.skip(f"memory is not limited here: {machine['not_enforced'].get('memory')}")

    job_id = cloud.spawn(hostile, name, *arguments)
    if answer == "cancelled":
        cloud.wait_line(job_id, "ignoring")
        cloud.request("POST", f"/v1/jobs/{job_id}/cancel")
    if answer == "retrying worker_lost":
        until(lambda: cloud.job(job_id)["attempt"] > 1, "the job is given to another runner")
        assert (cloud.events_of(job_id, "job.error")[0]["code"]) == "worker_lost"
        cloud.request("POST", f"/v1/jobs/{job_id}/cancel")
        return
    outcome = cloud.outcome(job_id)

    assert _told(outcome) == answer


def test_a_gibibyte_without_a_line_end_is_cut_and_the_loss_is_counted(cloud, hostile):
    job_id = cloud.spawn(hostile, "flood", 1024)
    outcome = cloud.outcome(job_id)
    entries = cloud.request("GET", f"/v1/jobs/{job_id}/logs?limit=1000").json["lines"]

    kept = sum(len(entry["line"]) for entry in entries if entry["stream"] == "stdout")
    told = [entry["line"] for entry in entries if entry["stream"] == "system"]
    assert outcome["result"] == "written"
    assert all(len(entry["line"]) <= 16 * 1024 for entry in entries)
    assert kept < 1024 * 1024 * 1024
    assert told
    assert all("dropped" in line for line in told)


def test_what_filled_the_disk_is_gone_for_the_next_call(cloud, hostile):
    machine = cloud.request("GET", "/v1/workers").json["items"][0]["machine"]
    if "memory" not in machine["enforced"]:
        pytest.skip(f"memory is not limited here: {machine['not_enforced'].get('memory')}")
    assert _told(cloud.outcome(cloud.spawn(hostile, "fill_disk"))) == "failed out_of_memory"

    assert cloud.outcome(cloud.spawn(hostile, "used_disk"))["result"] == []


def _told(outcome):
    """Return the end in the words of the page."""
    if outcome["status"] == "succeeded":
        return f'succeeded "{outcome["result"]}"'
    error = outcome["error"]
    if error is None:
        return outcome["status"]
    kind = error["type"].rpartition(".")[2] if error["code"] == "exception" else ""
    return " ".join(part for part in (outcome["status"], error["code"], kind) if part)
