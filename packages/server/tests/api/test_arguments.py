"""Call bodies."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apothic.wire.frames import encode_frame
from apothic.wire.limits import VALUE_MAX
from apothic.wire.values import CALL_TYPE, Value
from apothic_server.api.runtime.arguments import read_arguments
from apothic_server.domain.errors import Invalid, TooLarge
from apothic_server.testing.guarantees import guarantee

JSON = "application/json"
steady = settings(derandomize=True, database=None)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@steady
@given(st.lists(values), st.dictionaries(st.text(), values))
def test_json_arguments_keep_their_value(args, kwargs):
    value = read_arguments(json.dumps({"args": args, "kwargs": kwargs}).encode(), JSON)

    assert value.encoding == "json"
    assert json.loads(value.data) == [args, kwargs]


@pytest.mark.parametrize("body", [b"{}", b'{"args":[]}', b' {"kwargs": {} } '])
def test_arguments_may_be_left_out(body):
    assert read_arguments(body, JSON) == Value("json", b"[[],{}]")


@pytest.mark.parametrize("python", [None, "3.11"])
@pytest.mark.parametrize("encoding", ["json", "pickle"])
def test_the_bytes_of_a_frame_are_not_looked_at(encoding, python):
    body = encode_frame({"encoding": encoding, "python": python}, b"\x80\x04cos\nsystem\n\xff")

    assert read_arguments(body, CALL_TYPE) == Value(encoding, b"\x80\x04cos\nsystem\n\xff", python)


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b"[]", ["body"], "wrong_type"),
        (b'{"args":{}}', ["body", "args"], "wrong_type"),
        (b'{"args":null}', ["body", "args"], "wrong_type"),
        (b'{"kwargs":[]}', ["body", "kwargs"], "wrong_type"),
        (b'{"args":[1e999]}', ["body"], "number_invalid"),
        (b'{"args":["\\ud800"]}', ["body"], "text_invalid"),
        (b'{"kwargs":{"a":1,"a":2}}', ["body"], "repeated_key"),
    ],
)
def test_json_that_is_no_call_is_refused(body, loc, kind):
    with pytest.raises(Invalid) as caught:
        read_arguments(body, JSON)

    assert caught.value.problems
    assert [(entry["loc"], entry["type"]) for entry in caught.value.problems] == [(loc, kind)]


@guarantee("G16.4", "mass_assignment")
@pytest.mark.parametrize("field", ["job_id", "org", "status", "Args", "attempt", "\x00", ""])
def test_fields_that_a_call_does_not_have_are_refused(field):
    for body, media_type in (
        (json.dumps({"args": [], field: 1}).encode(), JSON),
        (encode_frame({"encoding": "json", "python": None, field: 1}), CALL_TYPE),
    ):
        with pytest.raises(Invalid) as caught:
            read_arguments(body, media_type)
        assert caught.value.problems
        assert caught.value.problems[0]["type"] == "unknown_field"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 8,
        CALL_TYPE.encode(),
        encode_frame({"encoding": "json", "python": None}) + b"x",
        encode_frame({"encoding": "json", "python": None})[:-1],
        encode_frame({"encoding": "json", "python": None}) * 2,
        struct.pack(">II", 6, 2) + b"[]",
        struct.pack(">II", 6, 9) + b"{}",
        struct.pack(">II", 2**32 - 1, 2),
        encode_frame({}),
        encode_frame({"encoding": "yaml"}),
        encode_frame({"encoding": ["json"]}),
        encode_frame({"encoding": "json", "python": "2.7"}),
        encode_frame({"encoding": "json", "python": 3.11}),
        encode_frame({"encoding": "json", "python": "3.11\n"}),
    ],
)
def test_what_is_no_call_frame_is_refused(body):
    with pytest.raises(Invalid):
        read_arguments(body, CALL_TYPE)


@guarantee("G15.1", "limits_table")
def test_a_value_up_to_the_limit_is_read_and_a_larger_one_has_its_own_code():
    head = {"encoding": "pickle", "python": None}
    assert len(read_arguments(encode_frame(head, b"1" * VALUE_MAX), CALL_TYPE).data) == VALUE_MAX
    with pytest.raises(TooLarge) as caught:
        read_arguments(encode_frame(head, b"1" * (VALUE_MAX + 1)), CALL_TYPE)
    assert caught.value.code == "value_too_large"
