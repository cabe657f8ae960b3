"""The page about what users expect names, for each expectation, tests that exist."""

import ast
import re

import pytest

from .tracked import ROOT

PAGE = ROOT / "docs/reference/expectations.md"
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(text: str) -> list[str]:
    """Return the rows of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| Expectation |")]


def wrong(text: str) -> list[str]:
    """Return what is wrong with each row: it names no test, or one that is not there."""
    found = [f"no test: {row[:60]}" for row in rows(text) if not TEST.search(row.rpartition(" | ")[2])]
    for file, name in sorted(set(TEST.findall(text))):
        if name not in names_in(file):
            found.append(f"not there: {file}::{name}")
    return found


def names_in(file: str) -> set[str]:
    """Return the names of the tests in a file; none when there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return set()
    body = ast.parse(path.read_text("utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_expectation_is_held_by_tests_that_exist():
    text = PAGE.read_text("utf-8")

    assert wrong(text) == []
    assert len(rows(text)) >= 30


@pytest.mark.parametrize(
    ("held_by", "says"),
    [
        ("somehow", "no test"),
        ("`tests/repo/test_expectations.py::test_of_nothing`", "not there"),
        ("`tests/repo/test_nothing.py::test_of_nothing`", "not there"),
    ],
)
def test_a_row_without_a_test_that_exists_is_told(held_by: str, says: str):
    (found,) = wrong(f"| Expectation | Here | Held by |\n|---|---|---|\n| It works | always | {held_by} |\n")

    assert found.startswith(says)
