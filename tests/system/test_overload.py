"""More load than a cloud with two workers can carry: what is accepted is right, the rest is refused in good order."""

from collections import Counter
from itertools import groupby

import pytest

from apothic_server.testing.guarantees import guarantee

from .clouds import RunningCloud, until
from .joined import JoinedWorker, is_live, token_file
from .load import Load, put_on
from .people import Person

PENDING_MAX, SLOTS = 100, 2
"""What `square` holds at once: calls that wait by default, and calls that run."""

CALLERS = 10 * (PENDING_MAX + SLOTS)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A cloud with a worker beside it and another one that joined."""
    person = Person(tmp_path_factory.mktemp("home"))
    running = RunningCloud(person)
    token = token_file(person)
    joined = JoinedWorker(
        person, "--name", "second", "--server", running.url, "--token-file", token, data=person.home / "w"
    )
    until(lambda: is_live(person, "second"), "the second worker is live")
    person.python(person.copy("tests/system/load_app.py")).ok()
    yield running
    joined.end()
    running.close()


def waiting(cloud):
    """Return the jobs that have not ended."""
    return [
        job
        for status in ("queued", "running")
        for job in cloud.request("GET", f"/v1/jobs?status={status}").json["items"]
    ]


@guarantee("G15.2", "overload_sheds")
def test_ten_times_the_load_is_refused_in_words_and_what_is_accepted_is_right(cloud):
    [called] = put_on(Load(cloud.url, cloud.key, "load", "square", CALLERS, 3 * CALLERS))
    [calm] = put_on(Load(cloud.url, cloud.key, "load", "square", 1, 3))

    accepted = [call for call in called if call.status == 200]
    refused = [call for call in called if call.status != 200]
    assert len(called) == 3 * CALLERS
    assert [call.document["result"] for call in accepted] == [call.number**2 for call in accepted]
    assert Counter((call.status, call.document["code"]) for call in refused).keys() == {(429, "too_many_pending")}
    assert min(int(call.headers["retry-after"]) for call in refused) >= 1
    assert len(accepted) >= PENDING_MAX
    assert [(call.status, call.document["result"]) for call in calm] == [(200, 0), (200, 1), (200, 4)]
    assert waiting(cloud) == []


@guarantee("G2.7", "slots_never_exceeded")
def test_no_process_and_no_function_executes_more_at_once_than_its_limits_on_several_workers(cloud):
    [called] = put_on(Load(cloud.url, cloud.key, "load", "when", 64, 640))

    assert {call.status for call in called} == {200}
    executed = sorted(call.document["result"] for call in called)
    by_process = {process: list(times) for process, times in groupby(executed, key=lambda found: found[0])}
    assert len(executed) == 640
    assert max(at_once(times) for times in by_process.values()) == 2
    assert max_processes(by_process) <= 3
    assert at_once(executed) <= 6


def at_once(executed):
    """Return how many ran at the same time, at most."""
    changes = sorted([(began, 1) for _, began, _ in executed] + [(ended, -1) for _, _, ended in executed])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def max_processes(by_process):
    """Return how many processes lived at the same time, at most, as far as their calls tell."""
    lives = [(process, min(t[1] for t in times), max(t[2] for t in times)) for process, times in by_process.items()]
    return at_once(lives)
