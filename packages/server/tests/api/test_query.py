"""Query parameters."""

from __future__ import annotations

import pytest

from apothic_server.api.shared.query import parse_query, seconds, whole_number
from apothic_server.domain.errors import Invalid


def read(query: str) -> list[object]:
    found = parse_query(query.encode(), frozenset({"n", "s", "t"}))
    return [whole_number(found, "n", -1, 10, 5), seconds(found, "s", 60, 60), found.get("t")]


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", [5, 60, None]),
        ("n=-1&s=0", [-1, 0, None]),
        ("s=0.25&n=10", [10, 0.25, None]),
        ("t=a+b%26", [5, 60, "a b&"]),
    ],
)
def test_good_parameters_are_read(query, value):
    assert read(query) == value


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("n=11", "out_of_range"),
        ("n=-2", "out_of_range"),
        ("n=1.0", "out_of_range"),
        ("n=", "out_of_range"),
        ("n=+1", "out_of_range"),
        ("n=%D9%A1", "out_of_range"),
        ("n=" + "9" * 5000, "out_of_range"),
        ("s=nan", "out_of_range"),
        ("s=inf", "out_of_range"),
        ("s=-0.1", "out_of_range"),
        ("s=60.1", "out_of_range"),
        ("s=1e1", "out_of_range"),
        ("n=1&n=1", "repeated_parameter"),
        ("N=1", "unknown_parameter"),
        ("n=1&", "unknown_parameter"),
        ("%00=1", "unknown_parameter"),
        ("t=%FF", "encoding_invalid"),
        ("t=a%00", "text_invalid"),
    ],
)
def test_anything_else_is_refused_with_its_place(query, kind):
    with pytest.raises(Invalid) as caught:
        read(query)

    assert caught.value.problems
    assert [problem["type"] for problem in caught.value.problems] == [kind]
    assert caught.value.problems[0]["loc"][0] == "query"
