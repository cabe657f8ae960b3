"""The committed document, the operation table and the served routes say the same."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from openapi_spec_validator import validate

from apothic_server.api.ops.table import ops_operations
from apothic_server.api.root import build_face
from apothic_server.api.runtime.document import read_document
from apothic_server.api.runtime.table import runtime_operations
from apothic_server.api.shared.errors import STATUSES
from apothic_server.api.shared.operations import Operation
from apothic_server.domain import errors
from apothic_server.domain.access import Audience
from apothic_server.testing.contract import Contract, Described
from apothic_server.testing.guarantees import guarantee

ROOT = Path(__file__).parents[4]
SOURCES = ROOT / "packages" / "server" / "src"
CODE = re.compile(r"`([a-z0-9_]+)`")
SET_CODE = re.compile(r'\bcode(?:: str)? ?= ?"([a-z0-9_]+)"')
DOCUMENT: dict[str, Any] = json.loads(read_document())
CONTRACT = Contract(DOCUMENT)


async def no_link(scope, receive, send, actor) -> None:
    raise AssertionError("no link here")


def table() -> dict[str, Operation]:
    names = (
        "apps",
        "deployments",
        "environments",
        "schedules",
        "archives",
        "values",
        "jobs",
        "groups",
        "stats",
        "streams",
        "workers",
        "enrolment",
        "health",
        "metrics",
    )
    keys = SimpleNamespace()
    services: Any = SimpleNamespace(keys=keys, authenticate=None, over=None, **dict.fromkeys(names))
    rows = ops_operations(services) + runtime_operations(services, no_link, b"")
    face = build_face(services, no_link, make_request_id=str, log=structlog.get_logger())
    assert list(face.operations) == [row.id for row in rows]
    return face.operations


TABLE = table()
pairs = pytest.mark.parametrize("name", sorted(TABLE))


def test_the_document_is_valid_openapi_and_the_one_at_the_root():
    validate(DOCUMENT)

    assert (ROOT / "openapi" / "runtime.json").read_bytes() == read_document()


@guarantee("G16.4", "every_route_has_policy")
def test_the_document_lists_exactly_the_operations_that_are_served():
    assert sorted(CONTRACT.operations) == sorted(TABLE)


@guarantee("G16.4", "every_route_has_policy")
@pairs
def test_document_and_table_agree_on_each_operation(name):
    row, described = TABLE[name], CONTRACT.operations[name]

    assert (row.method, row.path) == (described.method, described.path)
    assert row.statuses == described.statuses
    assert row.body_max == described.content["x-apothic-body-max"]
    assert row.query == frozenset(CONTRACT.parameters(name, "query"))
    assert set(CONTRACT.parameters(name, "path")) == {part[1:-1] for part in row.path.split("/") if part[:1] == "{"}
    assert set(row.accepts) == accepted_types(described)
    body = CONTRACT.follow(described.content.get("requestBody", {}))
    assert body.get("required", False) == (bool(row.accepts) and row.needs_body)
    assert set(row.answers) == answered_types(described)


@guarantee("G16.4", "every_route_has_policy")
@pairs
def test_document_and_table_agree_on_who_may_use_each_operation(name):
    policy, described = TABLE[name].policy, CONTRACT.operations[name].content

    told = described["x-apothic-policy"]
    assert (policy.audience.value, policy.scope) == (told["audience"], told.get("scope"))
    assert policy.attempts == told.get("attempts", False)
    assert not policy.attempts or 409 in TABLE[name].statuses
    schemes = {Audience.PUBLIC: [], Audience.WORKER: [{"worker_token": []}], Audience.JOIN: [{"join_token": []}]}
    assert described.get("security", DOCUMENT["security"]) == schemes.get(policy.audience, [{"api_key": []}])
    assert ({401, 403} <= TABLE[name].statuses) == (policy.audience is not Audience.PUBLIC)


@pairs
def test_every_operation_names_the_answers_any_request_can_get(name):
    assert {413, 422, 500, 503} <= TABLE[name].statuses
    if TABLE[name].body_max:
        assert {408, 415} <= TABLE[name].statuses


def test_every_example_fits_its_schema():
    checked = 0
    for media in find(DOCUMENT, lambda node: "example" in node and "schema" in node):
        assert CONTRACT.schema_problems(media["schema"], media["example"]) == []
        checked += 1
    assert checked > 20


def test_every_code_is_documented_once_with_its_status():
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")]
    told = {cells[0].strip(" `"): cells[1].strip() for cells in rows if cells[1].strip().isdigit()}

    for kind, status in STATUSES.items():
        assert told[kind.code] == str(status)
    assert told["internal"] == "500"
    assert told[errors.Fenced.code] == "409"
    assert len(told) == sum(cells[1].strip().isdigit() for cells in rows)


def test_every_code_in_the_sources_has_an_entry():
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    listed = {code for line in page.splitlines() if line.startswith("| `") for code in CODE.findall(line.split("|")[1])}
    sources = [path for path in SOURCES.rglob("*.py") if "testing" not in path.parts]
    used = {code for path in sources for code in SET_CODE.findall(path.read_text("utf-8"))}

    assert used - listed == set()
    assert len(used) > 20


def test_every_type_of_a_problem_has_an_entry():
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    section = page.partition("## Types of problems")[2].partition("\n## ")[0]
    listed = {
        kind for line in section.splitlines() if line.startswith("| `") for kind in CODE.findall(line.split("|")[1])
    }
    used = {kind for path in SOURCES.rglob("*.py") for kind in problem_types(ast.parse(path.read_text("utf-8")))}

    assert used - listed == set()
    assert len(used) > 20


def problem_types(module: ast.Module) -> set[str]:
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    kinds = [call.args[2] for call in calls if call.func.id in {"problem", "refusal"} and len(call.args) == 3]
    return {node.value for node in kinds if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def accepted_types(described: Described) -> set[str]:
    return set(CONTRACT.follow(described.content.get("requestBody", {})).get("content", {}))


def answered_types(described: Described) -> set[str]:
    responses = [
        CONTRACT.follow(response) for status, response in described.content["responses"].items() if int(status) < 300
    ]
    return {media_type for response in responses for media_type in response.get("content", {})}


def find(node: Any, is_wanted) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in find(item, is_wanted)]
    if not isinstance(node, dict):
        return []
    inner = [found for item in node.values() for found in find(item, is_wanted)]
    return [*inner, node] if is_wanted(node) else inner
