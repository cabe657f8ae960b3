"""Jobs that wait for each other and for places: what is stuck and what is not."""

import random

import pytest

from apothic.wire.functions import FunctionSpec
from apothic_server.domain.decide.cycles import JOBS_MAX, LINKS_MAX, Knot, is_stuck
from apothic_server.domain.decide.placement import Need
from apothic_server.testing.guarantees import guarantee


def need(name):
    return Need("org", ("deployment", name), "3.11", FunctionSpec(name, qualname=name))


def stuck(job, jobs, places):
    """Ask about `job`; `jobs` maps a name to what it awaits or to the function whose place it waits for."""

    def look(key):
        if key not in jobs:
            return None
        found = jobs[key]
        return Knot(need(found), ()) if isinstance(found, str) else Knot(None, found)

    return is_stuck(job, look, lambda wanted: places[wanted.group[1]])


@guarantee("G2.7", "nested_calls_no_deadlock")
@pytest.mark.parametrize(
    ("jobs", "places", "expected"),
    [
        pytest.param({"new": "f", "a": ["new"]}, {"f": ["a"]}, True, id="the only place waits for the call"),
        pytest.param({"new": "f", "a": ["new"]}, {"f": None}, False, id="a place is free"),
        pytest.param({"new": "f", "a": ["new"], "b": []}, {"f": ["a", "b"]}, False, id="another place moves"),
        pytest.param({"new": "f", "a": ["new"]}, {"f": ["a", "ended"]}, False, id="another place has just ended"),
        pytest.param(
            {"new": "f", "a": ["b"], "b": ["new"]}, {"f": ["a"]}, True, id="the place waits over another function"
        ),
        pytest.param(
            {"new": "f", "a": ["x"], "x": "g", "b": ["new"]},
            {"f": ["a"], "g": ["b"]},
            True,
            id="two chains wait for each other's places",
        ),
        pytest.param(
            {"new": "f", "a": ["x"], "x": "g", "b": ["new"], "c": []},
            {"f": ["a"], "g": ["b", "c"]},
            False,
            id="one of the places in between moves",
        ),
        pytest.param({"new": ["new"]}, {}, True, id="a job waits for itself"),
        pytest.param({"new": ["a"], "a": []}, {}, False, id="a job waits for one that executes"),
        pytest.param(
            {"new": "f", "a": ["new", "b"], "b": []}, {"f": ["a"]}, True, id="one of several waits is for the call"
        ),
    ],
)
def test_what_is_stuck(jobs, places, expected):
    assert stuck("new", jobs, places) is expected


def test_a_job_that_ended_is_not_stuck():
    assert not stuck("gone", {}, {})


def test_a_search_that_is_too_large_says_that_the_job_moves():
    ring = {str(number): [str((number + 1) % (JOBS_MAX + 10))] for number in range(JOBS_MAX + 10)}

    assert not stuck("0", ring, {})


@pytest.mark.parametrize("seed", range(200))
def test_a_job_is_stuck_exactly_when_no_order_of_ends_reaches_it(seed):
    """Compared with playing it out: let any job end that can, until none can."""
    dice = random.Random(seed)
    functions = {name: 1 + dice.randrange(2) for name in "fgh"}
    jobs, places = {}, {name: [] for name in functions}
    for number in range(8):
        place = dice.choice("fgh")
        if len(places[place]) < functions[place]:
            places[place].append(str(number))
            jobs[str(number)] = [str(dice.randrange(8)) for _ in range(dice.randrange(3))]
        else:
            jobs[str(number)] = place
    full = {name: held if len(held) == functions[name] else None for name, held in places.items()}

    ends = play({name: list(held) for name, held in places.items()}, functions, dict(jobs))

    assert {job for job in jobs if stuck(job, jobs, full)} == jobs.keys() - ends


def play(places, free, jobs):
    ended = set()
    while True:
        ending = [
            job for job, what in jobs.items()
            if job not in ended and not isinstance(what, str) and all(other in ended for other in what)
        ]  # fmt: skip
        for job in ending:
            ended.add(job)
            for held in places.values():
                held[:] = [other for other in held if other != job]
        starting = [
            job for job, what in jobs.items() if isinstance(what, str) and len(places[what]) < free[what]
        ]  # fmt: skip
        for job in starting:
            if len(places[jobs[job]]) < free[jobs[job]]:
                places[jobs[job]].append(job)
                jobs[job] = []
        if not ending and not starting:
            return ended


class Counted(list):
    """A collection that counts how often it is gone through."""

    looks = 0

    def __iter__(self):
        Counted.looks += 1
        return super().__iter__()


def test_a_long_chain_is_gone_through_once():
    names = [str(number) for number in range(JOBS_MAX - 1)]
    chain = {name: Counted([after]) for name, after in zip(names, [*names[1:], "last"], strict=True)}

    assert stuck("0", {**chain, "last": ["0"]}, {})
    assert not stuck("0", {**chain, "last": []}, {})
    assert Counted.looks <= 4 * len(names)


def test_a_search_among_too_many_places_is_given_up_soon():
    places = [str(number) for number in range(LINKS_MAX + 1)]
    looked_at = []

    def look(key):
        looked_at.append(key)
        return Knot(need("f"), ()) if key == "new" else Knot(None, ["new"])

    assert not is_stuck("new", look, lambda _: places)
    assert looked_at == ["new"]
