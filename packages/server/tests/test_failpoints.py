"""Failpoints: off without a setting, refused without consent, and every name in the code is a known one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import apothic_server
from apothic_server import failpoints
from apothic_server.domain.errors import Unavailable
from apothic_server.failpoints import CONSENT, POINTS, VARIABLE, FailpointsRefused, arm, fp

pytestmark = pytest.mark.anyio


@pytest.fixture
def armed():
    """Arm a setting until the test ends."""
    before = list(failpoints._handlers)
    yield lambda text: arm({VARIABLE: text, CONSENT: "1"})
    failpoints._handlers[:] = before


def test_without_a_setting_nothing_is_armed():
    arm({CONSENT: "1"})

    assert failpoints._handlers == []


@pytest.mark.parametrize("consent", [{}, {CONSENT: "yes"}])
def test_failpoints_are_refused_where_nobody_said_that_this_is_a_test(consent):
    with pytest.raises(FailpointsRefused, match="fail on purpose"):
        arm({VARIABLE: "hello.before=kill", **consent})

    assert failpoints._handlers == []


@pytest.mark.parametrize(
    "text", ["hello.before", "hello=kill", "hello.before=stop", "hello.before=kill@x", "hello.before=delay:-1", "x;y"]
)
def test_a_setting_that_makes_no_sense_is_refused(text, armed):
    with pytest.raises(FailpointsRefused, match="write POINT=kill"):
        armed(text)


async def test_a_point_raises_the_time_it_was_asked_to_and_no_other(armed):
    armed("hello.before=raise@2")

    await fp("hello.before")
    await fp("hello.after")
    with pytest.raises(Unavailable, match=r"hello\.before"):
        await fp("hello.before")
    await fp("hello.before")


async def test_a_point_without_a_turn_acts_every_time(armed):
    armed("term.before=raise; term.after=delay:0")

    await fp("term.after")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await fp("term.before")


def test_a_point_kills_its_process():
    program = """
import asyncio, os
from apothic_server.failpoints import arm, fp
arm(os.environ)
asyncio.run(fp("hello.before"))
"""
    environment = {**os.environ, VARIABLE: "hello.before=kill", CONSENT: "1"}

    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)

    assert done.returncode == -9


def test_every_point_of_the_code_is_known_and_every_known_point_is_in_the_code():
    root = Path(apothic_server.__file__).parent
    used = {
        call.args[0].value
        for path in root.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") == "fp"
        and isinstance(call.args[0], ast.Constant)
    }

    assert used == POINTS
