"""Workers that join from outside: a token, a credential, a job; and what the command line says on the way."""

import json
import signal

import pytest

from .clouds import until
from .people import APOTHIC
from .tls import CERTIFICATE, tls_in_front_of


class JoinedWorker:
    """One `apothic worker join`, in front of the test; `before` are words that run it somewhere else."""

    def __init__(self, person, *options, data, before=(), **environment):
        self.log = data.with_suffix(".log")
        self.data = data
        with self.log.open("a") as log:
            self.process = person.popen(
                *before, APOTHIC, "worker", "join", "--data", data, *options,
                stdout=log, stderr=log, start_new_session=True, **environment,
            )  # fmt: skip

    @property
    def said(self):
        return self.log.read_text()

    def end(self, number=signal.SIGTERM):
        """Signal it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def workers(stranger):
    """Start workers that end with the test."""
    running = []

    def start(*options, name, **keywords):
        data = stranger.home / f"worker-{name}"
        running.append(JoinedWorker(stranger, "--name", name, *options, data=data, **keywords))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.end()


def token_file(person, name="token"):
    """Make a join token with the command that the documentation shows, in a file of its own."""
    file = person.home / name
    file.touch(mode=0o600)
    file.write_text(person.apothic("worker", "token").ok().out)
    return file


def listed(person):
    """Return the workers as the command line lists them, by name."""
    found = json.loads(person.apothic("worker", "list", "--json").ok().out)["items"]
    return {one["name"]: one for one in found}


def is_live(person, name):
    return listed(person).get(name, {}).get("status") == "live"


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
