"""Workers that join from outside: a token, a credential, a job; and what the command line says on the way."""

import json

from .clouds import until
from .joined import is_live, listed, token_file
from .tls import CERTIFICATE, tls_in_front_of


def test_a_worker_joins_with_a_token_and_starts_again_with_its_credential_alone(own_cloud, stranger, workers):
    cloud = own_cloud("--no-worker")
    stranger.python(stranger.copy("tests/system/jobs_app.py")).ok()
    token = token_file(stranger)
    first = workers("--server", cloud.url, "--token-file", token, name="box")

    echoed = cloud.outcome(cloud.spawn("jobs", "echo", "there"))
    secret = json.loads((first.data / "credential.json").read_text())["token"]
    ended = first.end()
    until(lambda: listed(stranger)["box"]["status"] == "offline", "the worker is gone")
    token.unlink()
    workers(name="box")
    again = cloud.outcome(cloud.spawn("jobs", "echo", "again"))

    assert (echoed["result"], again["result"]) == ("there", "again")
    assert ended == 0
    assert is_live(stranger, "box")
    for place in (first.said, (cloud.data / "server.log").read_text()):
        assert secret not in place


def test_a_token_that_was_used_and_a_name_that_is_taken_are_refused_with_their_exit_codes(own_cloud, stranger, workers):
    cloud = own_cloud("--no-worker")
    token, fresh = token_file(stranger), token_file(stranger, "fresh")
    workers("--server", cloud.url, "--token-file", token, name="box")
    until(lambda: is_live(stranger, "box"), "the worker is there")

    common = ("worker", "join", "--server", cloud.url, "--json")
    used = stranger.apothic(*common, "--token-file", token, "--name", "second", "--data", stranger.home / "second")
    taken = stranger.apothic(*common, "--token-file", fresh, "--name", "box", "--data", stranger.home / "third")
    away = stranger.apothic(
        *("worker", "join", "--server", "http://127.0.0.1:1", "--token-file", fresh),
        *("--name", "fourth", "--data", stranger.home / "fourth"),
    )

    assert (used.status, used.error["code"]) == (3, "join_token_used")
    assert (taken.status, taken.error["code"]) == (6, "worker_name_taken")
    assert (away.status, "same command" in away.err) == (9, True)
    assert not list(stranger.home.glob("second/cred*"))
    assert sorted(listed(stranger)) == ["box"]


def test_a_removed_worker_ends_with_the_reason_and_stays_out(own_cloud, stranger, workers):
    cloud = own_cloud("--no-worker")
    box = workers("--server", cloud.url, "--token-file", token_file(stranger), name="box")
    until(lambda: is_live(stranger, "box"), "the worker is there")

    stranger.apothic("worker", "remove", "box", "--yes").ok()
    status = box.process.wait(timeout=30)
    again = stranger.apothic("worker", "join", "--data", box.data)

    assert (status, again.status) == (3, 3)
    assert "removed from the cloud" in box.said
    assert "join again" in again.err
    assert listed(stranger) == {}


def test_a_worker_joins_and_works_through_a_proxy_that_does_tls_and_trusts_no_other(own_cloud, stranger, workers):
    cloud = own_cloud("--no-worker")
    stranger.python(stranger.copy("tests/system/nested_app.py")).ok()
    token = token_file(stranger)
    with tls_in_front_of(cloud.url) as url:
        options = ("--server", url, "--token-file", token)
        wary = stranger.apothic("worker", "join", *options, "--name", "wary", "--data", stranger.home / "wary")
        box = workers(*options, name="box", env={"SSL_CERT_FILE": str(CERTIFICATE)})
        # A function that calls another one: archive, link and what user code asks of the API all go through the proxy.
        called = cloud.outcome(cloud.spawn("nested", "quadruple", 3))
        stopped = box.end()

    assert wary.status == 9
    assert "certificate" in wary.err.lower()
    assert called["result"] == 12
    assert stopped == 0
