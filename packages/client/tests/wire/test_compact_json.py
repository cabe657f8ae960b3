"""Compact JSON is what the standard library writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.compact_json import encoder, from_text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(VALUES, st.booleans())
def test_the_text_is_that_of_json(value: Any, ensure_ascii: bool) -> None:
    expected = json.dumps(value, separators=(",", ":"), ensure_ascii=ensure_ascii)

    assert encoder(ensure_ascii=ensure_ascii)(value) == expected


def test_what_is_no_json_raises_as_json_does() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TypeError):
        encoder()({"a": object()})
    with pytest.raises(ValueError, match="float"):
        encoder(allow_nan=False)([float("nan")])
    with pytest.raises(RecursionError):
        encoder()(circle)


def test_a_python_without_the_fast_encoder_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.encoder.c_make_encoder", None)

    assert encoder()({"a": [1, None, "ä"]}) == '{"a":[1,null,"\\u00e4"]}'


@given(VALUES, st.sampled_from(["", " ", "\n"]))
def test_a_text_is_read_as_json_reads_it(value: Any, space: str) -> None:
    text = space + json.dumps(value) + space

    assert from_text(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":}', "[1,]", "[1 2]", "nul", "1 1", '{"a":1}x', "\ufeff1"])
def test_what_is_no_text_of_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text)
