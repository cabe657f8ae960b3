"""The body of a deployment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apothic.wire.functions import FunctionSpec, Manifest
from apothic_server.api.runtime.document import read_document
from apothic_server.api.runtime.manifests import BATCHING_BOUNDS, BOUNDS, read_deployment
from apothic_server.domain.errors import Invalid
from apothic_server.testing.guarantees import guarantee

DIGEST = "ab" * 32


def manifest(**more) -> dict[str, Any]:
    plain = {"module": "hello", "app_variable": "app", "python": "3.11", "client_version": "0.1.0"}
    return {**plain, "functions": [{"name": "greet"}], **more}


def function(**more) -> dict[str, Any]:
    return manifest(functions=[{"name": "greet", **more}])


def read(value: Any) -> tuple[Manifest, str]:
    return read_deployment(json.dumps(value).encode())


def problems(value: Any) -> list[tuple[list[str | int], str]]:
    with pytest.raises(Invalid) as caught:
        read(value)
    return [(problem["loc"][1:], problem["type"]) for problem in caught.value.problems or []]


def test_a_small_manifest_gets_every_default():
    found, digest = read({"manifest": manifest(), "archive_sha256": DIGEST})

    spec = FunctionSpec("greet", qualname="greet")
    assert found == Manifest("hello", "app", "3.11", "0.1.0", (spec,))
    assert digest == DIGEST


def test_every_field_is_kept():
    spec = {
        "name": "work",
        "kind": "function",
        "qualname": "Tools.work",
        "cpu": 4,
        "memory_mb": 2048,
        "timeout_s": 60,
        "queue_timeout_s": 61,
        "startup_timeout_s": 62,
        "deadline_s": 63,
        "disconnect_grace_s": 64,
        "max_retries": 3,
        "retry_initial_delay_s": 2,
        "retry_backoff_coefficient": 1.5,
        "retry_max_delay_s": 30.5,
        "max_containers": 7,
        "tasks_per_container": 8,
        "concurrent_requests": 9,
        "max_pending_tasks": 10,
        "at_most_once": False,
        "is_async": True,
        "placement": {"gpu": "A100", "offer_filters": {"dph": {"lt": 0.5}}},
    }

    found, _ = read({"manifest": manifest(functions=[spec]), "archive_sha256": DIGEST})

    assert found.functions == (FunctionSpec(**spec),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], [([], "wrong_type")]),
        ({}, [(["manifest"], "missing"), (["archive_sha256"], "missing")]),
        ({"manifest": 1, "archive_sha256": DIGEST}, [(["manifest"], "wrong_type")]),
        ({"manifest": manifest(functions=1), "archive_sha256": DIGEST}, [(["manifest", "functions"], "wrong_type")]),
        (
            {"manifest": manifest(functions=[1]), "archive_sha256": DIGEST},
            [(["manifest", "functions", 0], "wrong_type")],
        ),
        ({"manifest": manifest(functions=[{}]), "archive_sha256": DIGEST}, [(["manifest", "functions", 0], "missing")]),
        ({"manifest": manifest(), "archive_sha256": DIGEST.upper()}, [(["archive_sha256"], "pattern")]),
        ({"manifest": manifest(), "archive_sha256": None}, [(["archive_sha256"], "pattern")]),
        ({"manifest": manifest(functions=[]), "archive_sha256": DIGEST}, [(["manifest", "functions"], "too_short")]),
    ],
)
def test_a_body_of_another_shape_is_refused_with_its_place(value, expected):
    assert problems(value) == expected


@pytest.mark.parametrize("name", BOUNDS)
def test_every_number_has_its_bounds(name):
    low, high = BOUNDS[name]
    for value in (low, high):
        read({"manifest": function(**{name: value}), "archive_sha256": DIGEST})
    for value in (low - 1, high + 1, 10**300):
        found = problems({"manifest": function(**{name: value}), "archive_sha256": DIGEST})
        assert found == [(["manifest", "functions", 0, name], "out_of_range")]
    for value in (True, "1", [1]) if name == "deadline_s" else (True, "1", None, [1]):
        found = problems({"manifest": function(**{name: value}), "archive_sha256": DIGEST})
        assert found == [(["manifest", "functions", 0, name], "wrong_type")]


@pytest.mark.parametrize(
    ("batching", "place", "kind"),
    [
        ({"max_batch_size": 0}, ["batching", "max_batch_size"], "out_of_range"),
        ({"max_batch_size": 1001}, ["batching", "max_batch_size"], "out_of_range"),
        ({"max_batch_size": 8, "wait_ms": -1}, ["batching", "wait_ms"], "out_of_range"),
        ({"max_batch_size": 8, "wait_ms": 600_001}, ["batching", "wait_ms"], "out_of_range"),
        ({"max_batch_size": "8"}, ["batching", "max_batch_size"], "wrong_type"),
        ({"wait_ms": 8}, ["batching"], "missing"),
        ({"max_batch_size": 8, "size": 1}, ["batching", "size"], "unknown_field"),
        (8, ["batching"], "wrong_type"),
    ],
)
def test_batching_has_its_form(batching, place, kind):
    found = problems({"manifest": function(batching=batching), "archive_sha256": DIGEST})
    assert found == [(["manifest", "functions", 0, *place], kind)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks_per_container", 2),
        ("concurrent_requests", 2),
        ("is_generator", True),
        ("schedule", {"cron": None, "timezone": "UTC", "period_s": 60.0}),
    ],
)
def test_batching_excludes_what_it_cannot_be_with(name, value):
    spec = {"batching": {"max_batch_size": 1000, "wait_ms": 600_000}}
    read({"manifest": function(**spec), "archive_sha256": DIGEST})
    found = problems({"manifest": function(**spec, **{name: value}), "archive_sha256": DIGEST})
    assert found == [(["manifest", "functions", 0, name], "excluded")]


def test_the_document_tells_the_same_bounds():
    described = json.loads(read_document())["components"]["schemas"]["FunctionSpec"]["properties"]

    told = {name: (field["minimum"], field["maximum"]) for name, field in described.items() if "minimum" in field}
    assert told == BOUNDS
    batching = json.loads(read_document())["components"]["schemas"]["BatchSpec"]["properties"]
    assert {name: (field["minimum"], field["maximum"]) for name, field in batching.items()} == BATCHING_BOUNDS
    assert {name: field["default"] for name, field in described.items() if "default" in field} == {
        field: getattr(FunctionSpec("x"), field) for field in described if field not in ("name", "placement")
    }


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("module", ["", "a b", "a..b", ".a", "a" * 513, "a-b", "\u0000"]),
        ("app_variable", ["", "a.b", "1a", "ä", "a" * 129]),
        ("python", ["", "3", "2.7", "3.11.7", "3.111", "3.11 "]),
        ("client_version", ["", "1 0", "1" * 65, "1\n"]),
    ],
)
def test_texts_have_their_form(field, values):
    for value in values:
        found = problems({"manifest": manifest(**{field: value}), "archive_sha256": DIGEST})
        assert found in ([(["manifest", field], "pattern")], [([], "text_invalid")])


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "1a", "a" * 129, "__import__('os')"])
def test_function_names_are_identifiers(name):
    found = problems({"manifest": function(name=name), "archive_sha256": DIGEST})

    assert found == [(["manifest", "functions", 0, "name"], "pattern")]


def test_kinds_of_later_releases_are_refused():
    found = problems({"manifest": function(kind="service"), "archive_sha256": DIGEST})

    assert found == [(["manifest", "functions", 0, "kind"], "unknown_kind")]


def test_a_function_that_runs_at_most_once_has_no_retries():
    read({"manifest": function(at_most_once=True), "archive_sha256": DIGEST})
    found = problems({"manifest": function(at_most_once=True, max_retries=1), "archive_sha256": DIGEST})

    assert found == [(["manifest", "functions", 0, "max_retries"], "excluded")]


def test_a_repeated_function_is_named():
    twice = manifest(functions=[{"name": "greet"}, {"name": "other"}, {"name": "greet"}])

    assert problems({"manifest": twice, "archive_sha256": DIGEST}) == [(["manifest", "functions"], "repeated_name")]


def test_an_app_has_at_most_1000_functions():
    many = manifest(functions=[{"name": f"f{number}"} for number in range(1001)])

    assert problems({"manifest": many, "archive_sha256": DIGEST}) == [(["manifest", "functions"], "too_long")]


def test_placement_is_bounded():
    wide = function(placement={"offer_filters": {"name": {"in": ["a" * 70_000]}}})

    found = problems({"manifest": wide, "archive_sha256": DIGEST})
    assert found == [(["manifest", "functions", 0, "placement"], "too_long")]


def test_several_problems_are_told_at_once_and_not_endlessly():
    bad = manifest(functions=[{"name": "a b", "cpu": 0} for _ in range(30)], python="x")

    assert len(problems({"manifest": bad, "archive_sha256": DIGEST})) == 20


@guarantee("G16.4", "mass_assignment")
@pytest.mark.parametrize("field", ["org", "version", "created_by", "deployment_id", "function_id", "Name"])
def test_fields_that_do_not_exist_are_refused_at_every_level(field):
    extra = {field: "x"}

    assert problems({"manifest": manifest(), "archive_sha256": DIGEST, **extra}) == [([field], "unknown_field")]
    assert problems({"manifest": manifest(**extra), "archive_sha256": DIGEST}) == [
        (["manifest", field], "unknown_field")
    ]
    found = problems({"manifest": function(**extra), "archive_sha256": DIGEST})
    assert found == [(["manifest", "functions", 0, field], "unknown_field")]
