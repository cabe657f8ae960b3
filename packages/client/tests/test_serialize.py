"""Values: which encoding is chosen, that it comes back equal, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apothic._serialize import (
    PYTHON_MINOR,
    NotSerializable,
    PythonMismatch,
    ValueTooLarge,
    decode,
    encode_arguments,
    encode_item,
    encode_result,
)
from apothic.wire.limits import JSON_DEPTH_MAX, VALUE_MAX
from apothic.wire.values import Value

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Level(IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


@dataclass
class Point:
    x: int


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def same(left: Any, right: Any) -> bool:
    """Equal with equal types all the way down; -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


@given(json_values)
def test_json_values_come_back_equal_and_of_equal_types(value) -> None:
    encoded = encode_result(value)
    assert same(decode(encoded), value)
    if encoded.encoding == "json":
        assert same(json.loads(encoded.data), value)
        assert encoded.python is None


@given(st.lists(json_values), st.dictionaries(st.text(), json_values))
def test_arguments_are_a_list_of_positions_and_keywords(args, kwargs) -> None:
    assert same(decode(encode_arguments(tuple(args), kwargs)), [args, kwargs])


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**1000), 1.5, -0.0, 1e308, "", "é\0\u2028", [], {}, {"a": [1, {"b": None}]}]
)
def test_plain_values_go_as_json(value) -> None:
    encoded = encode_result(value)
    assert encoded.encoding == "json"
    assert same(decode(encoded), value)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        [(1,)],
        {1: "a"},
        {Text("a"): 1},
        Text("a"),
        Level.HIGH,
        [1, Level.HIGH],
        [1.0, Decimal(1)],
        OrderedDict(a=1),
        b"bytes",
        {1, 2},
        float("inf"),
        2**3000,
        "\ud800",
        {"\udfff": 1},
        nested(JSON_DEPTH_MAX + 1),
        Point(1),
        complex(1, 2),
    ],
)
def test_everything_else_goes_as_pickle_and_comes_back_equal(value) -> None:
    encoded = encode_result(value)
    assert encoded.encoding == "pickle"
    back = decode(encoded)
    assert back == value
    assert type(back) is type(value)


def test_nan_goes_as_pickle() -> None:
    encoded = encode_result([float("nan")])
    assert encoded.encoding == "pickle"
    assert math.isnan(decode(encoded)[0])


def test_values_nested_up_to_the_limit_go_as_json() -> None:
    assert encode_result(nested(JSON_DEPTH_MAX)).encoding == "json"


def test_a_cyclic_list_goes_as_pickle() -> None:
    value: list[Any] = []
    value.append(value)
    back = decode(encode_result(value))
    assert back[0] is back


def by_value() -> dict[str, Any]:
    def inner(number: int) -> int:
        return number + 1

    class Local:
        pass

    class LocalLevel(IntEnum):
        LOW = 1

    return {
        "lambda": lambda: 1,
        "nested function": inner,
        "local class": Local,
        "instance of a local class": Local(),
        "member of a local enum": LocalLevel.LOW,
        "code": inner.__code__,
        "inside containers": [{"deep": (inner,)}],
    }


@pytest.mark.parametrize("name", list(by_value()))
def test_code_and_classes_by_value_need_an_equal_interpreter(name) -> None:
    encoded = encode_arguments((by_value()[name],), {})
    assert (encoded.encoding, encoded.python) == ("pickle", PYTHON_MINOR)
    decode(encoded)


@pytest.mark.parametrize(
    "value",
    [
        len,
        Point,
        Point(1),
        dataclass,
        math.sqrt,
        type(None),
        type(...),
        int,
        "".join,
        [1].append,
        Level,
        type(len),
        (type(NotImplemented),),
    ],
)
def test_what_is_named_by_reference_needs_no_equal_interpreter(value) -> None:
    encoded = encode_result(value)
    assert (encoded.encoding, encoded.python) == ("pickle", None)
    decode(encoded)


def test_a_value_of_another_minor_version_is_refused_naming_both() -> None:
    with pytest.raises(PythonMismatch) as caught:
        decode(Value("pickle", b"", "3.9"))
    assert caught.value.made_by == "3.9"
    assert "3.9" in str(caught.value)
    assert PYTHON_MINOR in str(caught.value)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="carrier-pigeon"):
        decode(Value("carrier-pigeon", b""))


def test_what_cannot_be_pickled_is_named_by_position_or_keyword() -> None:
    with pytest.raises(NotSerializable, match=r"^argument 2 of type _thread\.lock cannot be sent: .*lock"):
        encode_arguments((1, threading.Lock()), {})
    by_keyword = r"^argument 'where' of type _io\.TextIOWrapper cannot be sent: "
    with Path("/dev/null").open("w") as file, pytest.raises(NotSerializable, match=by_keyword):
        encode_arguments((), {"where": file})
    with pytest.raises(NotSerializable, match=r"^the result of type _thread\.lock"):
        encode_result(threading.Lock())


def test_an_object_that_refuses_with_any_exception_is_named() -> None:
    with pytest.raises(NotSerializable, match=r"argument 1 of type .*Refusing cannot be sent: not today"):
        encode_arguments((Refusing(),), {})


class Refusing:
    def __reduce__(self) -> Any:
        raise OSError("not today")


@pytest.mark.parametrize(
    "value", ["x" * VALUE_MAX, [1] * VALUE_MAX, b"x" * VALUE_MAX, (1.5,) * VALUE_MAX, {"a": b"x" * VALUE_MAX}]
)
def test_values_over_the_limit_are_refused(value) -> None:
    with pytest.raises(ValueTooLarge):
        encode_result(value)
    with pytest.raises(ValueTooLarge):
        encode_arguments((value,), {})


@pytest.mark.parametrize("value", ["x" * VALUE_MAX, {b"x" * VALUE_MAX}])
def test_what_is_too_large_is_said_alike_of_one_thing_and_of_many(value) -> None:
    for encode, what in (
        (lambda: encode_result(value), "the result"),
        (lambda: encode_item(value, 1), "item 1"),
        (lambda: encode_arguments((value,), {}), "the arguments"),
    ):
        with pytest.raises(
            ValueTooLarge, match=rf"^{what} cannot be sent: (1 048 5\d\d bytes when|more than the 1 MiB)"
        ):
            encode()


def test_the_largest_value_passes() -> None:
    encoded = encode_result("x" * (VALUE_MAX - 2))
    assert len(encoded.data) == VALUE_MAX


def test_a_small_call_is_encoded_in_few_steps() -> None:
    encode_arguments(("world",), {})
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    encode_arguments(("world", 3), {"flag": True})
    sys.setprofile(None)

    assert 0 < calls < 40


SCRIPT = """
    import sys, pickle
    sys.path.append(sys.argv[1])

    class Point:
        pass

    def helper(): pass

    if __name__ == "__main__":
        from apothic._serialize import decode, encode_result
        from apothic.wire.values import Value
        by_name = Value("pickle", b"\\x80\\x04c" + sys.argv[2].encode() + b"\\nPoint\\n.")
        found = decode(by_name, main_alias=sys.argv[2])
        assert found is Point, found
        assert sys.argv[2] not in sys.modules
        for value in (Point, Point(), helper):
            assert encode_result(value).python is not None, value
        elsewhere = decode(Value("pickle", b"\\x80\\x04cdecimal\\nDecimal\\n."), main_alias=sys.argv[2])
        assert elsewhere.__name__ == "Decimal"
        print("ok")
"""


@pytest.mark.parametrize(
    ("path", "module"), [("shop.py", "shop"), ("pkg/shop.py", "pkg.shop"), ("shop/__init__.py", "shop")]
)
def test_names_of_the_deployed_script_are_the_callers_own(tmp_path, path, module, packages) -> None:
    script = tmp_path / path
    script.parent.mkdir(exist_ok=True)
    script.write_text(dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script), packages, module], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_a_script_started_as_a_module_is_recognised(tmp_path, packages) -> None:
    (tmp_path / "shop.py").write_text(dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "-m", "shop", packages, "shop"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_another_main_file_maps_nothing() -> None:
    with pytest.raises(ModuleNotFoundError):
        decode(Value("pickle", b"\x80\x04cno_such_app\nPoint\n."), main_alias="no_such_app")


@pytest.fixture
def packages() -> str:
    """Folder that holds the `apothic` package."""
    import apothic

    return str(Path(apothic.__file__).parent.parent)
