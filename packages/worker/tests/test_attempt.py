"""What an attempt's runner says of its end, as it is reported."""

import pytest

from apothic.wire.link import Assign
from apothic.wire.values import Value
from apothic_worker.attempt import Attempt, end_of
from apothic_worker.failures import OURS


@pytest.mark.parametrize("code", sorted(OURS))
def test_a_runner_that_lives_cannot_say_that_it_died(code):
    attempt = Attempt(Assign("r", "j", 1, 1, 60, Value("json", b"[[],{}]")), "1")
    error = {"type": "builtins.ValueError", "message": "no", "traceback": "", "code": code, "causes": []}

    end = end_of(attempt, {"kind": "error", "call": "1", "error": error}, b"")

    assert (end.outcome, end.error.code, end.error.message) == ("failed", "exception", "no")
