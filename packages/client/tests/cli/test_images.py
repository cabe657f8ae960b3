"""`apothic image`: what functions have installed, and the kept logs of builds."""

from urllib.parse import parse_qs

import pytest

from apothic.wire.images import ImageSpec, environment_id

PACKAGES = ["numpy==2.1.0", "rich", "idna", "click"]
ENVIRONMENT = environment_id(ImageSpec("3.12", tuple(PACKAGES)))


@pytest.fixture
def built(connected, shapes):
    """A cloud whose app has a function with packages and one without an image; its build went well."""
    known = {"worker": "local", "environment": ENVIRONMENT, "time": shapes.TIME}
    lines = [{**known, "line": "Resolved 4 packages"}, {**known, "line": " + numpy==2.1.0"}]
    events = [(3, "deployment.build_log", line) for line in lines] + [
        (5, "deployment.built", {**known, "took_ms": 1234})
    ]

    def page(_, asked):
        kinds = parse_qs(asked.query)["types"][0].split(",")
        found = [{"index": index, "event": kind, "data": data} for index, kind, data in events if kind in kinds]
        return shapes.Answer(document={"events": found, "last_index": 5, "is_final": False})

    manifest = shapes.manifest_document()
    image = {
        "python": "3.12",
        "requirements": PACKAGES,
        "workdir": "/srv",
        "mounts": {"/data/x": "local-files/1/data/x"},
    }
    manifest["functions"] = [{"name": "greet", "image": image}, {"name": "bare", "image": None}]
    connected.script["GET", f"/v1/deployments/{shapes.DEPLOYMENT}"] = shapes.Answer(
        document=shapes.deployment_document(manifest=manifest)
    )
    connected.script["GET", "/v1/apps/hello-world"] = shapes.Answer(document=shapes.app_document())
    connected.script["GET", f"/v1/deployments/{shapes.DEPLOYMENT}/events"] = page
    held = shapes.held_document(environment=ENVIRONMENT)
    connected.script["GET", "/v1/environments"] = shapes.Answer(document=held)
    return events


def test_images_of_live_functions_are_listed_with_their_last_build(built, run, shapes):
    shown = run("image", "list").out.splitlines()
    greet, bare = run("image", "list", "hello-world", "--json").json["items"]

    assert "numpy==2.1.0, rich, idna and 1 more" in shown[1]
    assert "built on local in 1.2 s" in shown[1]
    assert "87.0 MiB" in shown[1]
    assert shown[2].split() == ["hello-world", "bare", shapes.manifest_document()["python"], "none", "-", "-", "-"]
    assert (greet["environment"], greet["files"], greet["workdir"]) == (ENVIRONMENT, ["/data/x"], "/srv")
    assert greet["build"]["kind"] == "built"
    assert [one["worker"] for one in greet["held"]] == ["local"]
    assert (bare["environment"], bare["build"], bare["packages"]) == (None, None, [])


@pytest.mark.parametrize("by_app", [True, False])
def test_the_log_of_builds_is_printed(built, run, shapes, by_app):
    found = run("image", "logs", "hello-world" if by_app else shapes.DEPLOYMENT)

    assert found.out.splitlines() == ["Resolved 4 packages", " + numpy==2.1.0", "built on local: 1.2 s"]


def test_the_logs_of_two_builds_at_once_are_printed_one_after_the_other(built, run, shapes):
    other = {"worker": "local", "environment": "1" * 32, "time": shapes.TIME}
    built.insert(1, (4, "deployment.build_log", {**other, "line": "elsewhere"}))
    found = run("image", "logs", "hello-world")

    assert found.out.splitlines() == ["Resolved 4 packages", " + numpy==2.1.0", "built on local: 1.2 s", "elsewhere"]


def test_a_failed_build_is_told(built, run, shapes):
    built[2] = (5, "deployment.build_failed", {**built[0][2], "line": None, "message": "no wheel\nuv says"})

    assert run("image", "logs", "hello-world").out.splitlines()[2:] == ["failed on local: no wheel", "uv says"]
    assert "failed on local" in run("image", "list").out


def test_without_a_build_and_without_a_live_version_it_is_said(built, run, connected, shapes):
    built.clear()
    told = run("image", "logs", "hello-world")
    connected.script["GET", "/v1/apps/hello-world"] = shapes.Answer(
        document={**shapes.app_document(), "deployment_id": None, "version": None, "functions": []}
    )
    stopped = run("image", "logs", "hello-world")

    assert (told.code, told.out) == (0, "")
    assert "No build was needed" in told.err
    assert stopped.code == 5
    assert run("image", "logs", "jobs:01").code == 2


def test_a_prune_says_what_goes_asks_first_and_says_what_was_freed(connected, run):
    dry = run("image", "prune", "--dry-run")
    refused = run("image", "prune")
    asked = connected.requests()
    done = run("image", "prune", "--yes")
    told = run("image", "prune", "--yes", "--json").json

    assert dry.out.splitlines()[1].split()[:4] == ["local", "0" * 32, "87.0", "MiB"]
    assert dry.err == "Would remove 1 environment of 87.0 MiB; what others share stays.\n"
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert asked == ["GET /v1/environments"] * 2
    assert done.err == "Removed 1 environment of 87.0 MiB; 66.8 MiB of disk are free again.\n"
    assert (told["freed_bytes"], len(told["removed"])) == (70_000_000, 1)


@pytest.mark.parametrize("why", ["is_needed", "is_in_use"])
def test_what_is_needed_or_in_use_is_no_matter_of_a_prune(connected, run, shapes, why):
    held = shapes.held_document(**{why: True})
    connected.script["GET", "/v1/environments"] = shapes.Answer(document=held)

    found = run("image", "prune")

    assert (found.code, found.out) == (0, "")
    assert "Nothing to remove" in found.err
    assert connected.requests() == ["GET /v1/environments"]


def test_a_worker_that_does_not_answer_and_a_server_that_does_not_dispatch_are_told(connected, run, shapes):
    held = {**shapes.held_document(), "unanswered": ["box"]}
    connected.script["GET", "/v1/environments"] = shapes.Answer(document=held)
    silent = run("image", "prune", "--dry-run")
    connected.script["GET", "/v1/environments"] = shapes.Answer(document={**held, "items": [], "is_known": False})
    elsewhere = run("image", "prune", "--dry-run")

    assert "Worker box did not answer in time." in silent.err
    assert "does not dispatch" in elsewhere.err
