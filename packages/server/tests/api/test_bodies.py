"""JSON bodies: what is read, what is refused, and that depth is measured exactly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apothic_server.api.shared.bodies import check_storable, json_depth_exceeds, parse_json
from apothic_server.domain.errors import Invalid
from apothic_server.testing.guarantees import guarantee

steady = settings(derandomize=True, database=None)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['[{"', "\\", '\\"]', "}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@steady
@given(values, st.booleans())
def test_json_is_read_as_it_is(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)

    assert parse_json(text.encode("utf-8")) == value


@steady
@given(values, st.integers(0, 6))
def test_depth_is_measured_exactly_whatever_the_strings_hold(value, limit):
    assert json_depth_exceeds(json.dumps(value).encode(), limit) == (depth(value) > limit)


@guarantee("G15.1", "limits_table")
def test_nesting_of_64_is_read_and_65_is_refused():
    assert parse_json(b"[" * 64 + b"]" * 64)
    with pytest.raises(Invalid) as caught:
        parse_json(b"[" * 65 + b"]" * 65)
    assert caught.value.problems
    assert caught.value.problems[0]["type"] == "too_deep"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b"{} {}", "json_invalid"),
        (b"NaN", "json_invalid"),
        (b"-Infinity", "json_invalid"),
        (b"\xef\xbb\xbf{}", "json_invalid"),
        (b"1" * 5000, "json_invalid"),
        (b'"\xff"', "encoding_invalid"),
        ('"ä"'.encode("utf-16"), "encoding_invalid"),
        (b'{"a":1,"a":1}', "repeated_key"),
        (b'[{"b":{"a":1,"\\u0061":1}}]', "repeated_key"),
        (b"[" * 500_000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
    ],
)
def test_what_is_no_clean_json_is_refused(body, kind):
    with pytest.raises(Invalid) as caught:
        parse_json(body)

    assert caught.value.problems
    assert caught.value.problems[0]["type"] == kind


@pytest.mark.parametrize("body", [b'["\\u0000"]', b'[{"\\ud800":1}]', b'{"a":["\\udfff"]}', b"[1e999]", b'"a\\u0000b"'])
def test_text_and_numbers_that_the_store_cannot_hold_are_refused(body):
    with pytest.raises(Invalid):
        check_storable(parse_json(body), ["body"])


def test_a_surrogate_pair_is_text():
    text = parse_json(b'"\\ud83d\\ude00"')

    check_storable(text, ["body"])

    assert text == "\N{GRINNING FACE}"
