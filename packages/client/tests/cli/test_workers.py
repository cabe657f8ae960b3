"""`apothic worker`: what it asks of the cloud and prints."""

import pytest

BOX = {
    "name": "box", "status": "live", "draining": False, "jobs": 2, "joined_at": "2026-11-21T23:42:00.000Z",
    "worker_id": None,
}  # fmt: skip
TOKEN = f"li_{'0' * 38}"
TOKEN_ID = f"join_tokens:{'0' * 26}"


@pytest.fixture
def with_box(connected, shapes):
    """The scripted cloud, in which a worker has joined."""
    found = connected.script["GET", "/v1/workers"].document
    connected.script["GET", "/v1/workers"] = shapes.Answer(document={**found, "enrolled": [BOX]})
    for method, path, status in (
        ("POST", "/v1/workers/box/drain", "draining"),
        ("POST", "/v1/workers/box/resume", "live"),
        ("DELETE", "/v1/workers/box", "removed"),
    ):
        connected.script[method, path] = shapes.Answer(document={**BOX, "status": status})
    return connected


def test_token_prints_the_token_alone_and_says_how_to_use_it(connected, run, shapes):
    made = {"token": TOKEN, "expires_at": "2026-11-21T23:42:00.000Z", "join_token_id": TOKEN_ID}
    connected.script["POST", "/v1/join-tokens"] = shapes.Answer(201, made)

    found = run("worker", "token", "--life-s", "600")

    assert found.out == f"{TOKEN}\n"
    assert "apothic worker join --server http" in found.err
    assert TOKEN not in found.err
    assert f"--revoke {TOKEN_ID}" in found.err
    assert connected.asked[-1].body == b'{"life_s": 600}'
    assert run("worker", "token", "--json").json == made


def test_tokens_that_nobody_used_are_listed_and_ended(connected, run, shapes):
    known = {
        "join_token_id": TOKEN_ID,
        "created_at": "2026-11-21T22:42:00.000Z",
        "expires_at": "2026-11-21T23:42:00.000Z",
    }
    connected.script["GET", "/v1/join-tokens"] = shapes.Answer(document={"items": [known]})
    connected.script["DELETE", f"/v1/join-tokens/{TOKEN_ID}"] = shapes.Answer(document=known)

    listed = run("worker", "token", "--list")
    ended = run("worker", "token", "--revoke", TOKEN_ID)
    both = run("worker", "token", "--list", "--revoke", TOKEN_ID)

    assert [line.split() for line in listed.out.splitlines()] == [["TOKEN", "MADE", "EXPIRES"], list(known.values())]
    assert (ended.code, ended.out, TOKEN_ID in ended.err) == (0, "", True)
    assert (both.code, "Give one of them" in both.err) == (2, True)
    assert [asked.method for asked in connected.asked] == ["GET", "DELETE"]


@pytest.mark.parametrize("life_s", ["59", "86401", "soon"])
def test_a_life_out_of_bounds_is_wrong_usage(connected, run, life_s):
    assert run("worker", "token", "--life-s", life_s).code == 2
    assert connected.asked == []


def test_list_prints_those_that_joined_and_those_beside_servers(with_box, run):
    found = run("worker", "list")

    assert [line.split()[:3] for line in found.out.splitlines()] == [
        ["WORKER", "STATUS", "JOBS"],
        ["box", "live", "2"],
        ["local", "live", "-"],
    ]
    assert [one["enrolled"] for one in run("worker", "list", "--json").json["items"]] == [True, False]


@pytest.mark.parametrize("command", ["worker list", "image list"])
def test_lists_of_workers_and_images_can_be_watched(connected, run, command):
    refused = run(*command.split(), "--watch", "--json")

    assert (refused.code, "--jsonl" in refused.err) == (2, True)


@pytest.mark.parametrize(("verb", "status"), [("drain", "draining"), ("resume", "live")])
def test_drain_and_resume_say_what_the_worker_is_now(with_box, run, verb, status):
    assert run("worker", verb, "box").out == f"worker  box\nstatus  {status}\njobs    2\n"
    assert run("worker", verb, "box", "--json").json["status"] == status


def test_remove_asks_first(with_box, run):
    refused = run("worker", "remove", "box")
    unknown = run("worker", "remove", "local")
    done = run("worker", "remove", "box", "--yes")

    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert (unknown.code, "No worker named local has joined" in unknown.err, "--yes" in unknown.err) == (5, True, False)
    assert "status  removed" in done.out
    assert [asked.method for asked in with_box.asked] == ["GET", "GET", "DELETE"]


def test_a_worker_that_nobody_knows_is_told(connected, run, shapes):
    connected.script["POST", "/v1/workers/nobody/drain"] = shapes.refused(404, "not_found", "There is no such worker.")

    gone = shapes.refused(404, "not_found", "There is no such join token.")
    connected.script["DELETE", "/v1/join-tokens/nothing"] = gone
    found = run("worker", "drain", "nobody")
    revoked = run("worker", "token", "--revoke", "nothing")

    assert (found.code, "`apothic worker list`" in found.err) == (5, True)
    assert (revoked.code, "`apothic worker token --list`" in revoked.err) == (5, True)
