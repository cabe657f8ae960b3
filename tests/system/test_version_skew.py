"""Clients of one Python version and functions of another: what can be read is passed on, what cannot is refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import apothic
from apothic_server.testing.skips import note

from .clouds import RunningCloud

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
APP = """
import sys
from apothic import App

app = App("skew-%d%d" % sys.version_info[:2])

@app.function()
def where(value):
    return ["%d.%d" % sys.version_info[:2], value]

@app.function()
def apply(function, value):
    return function(value)

if __name__ == "__main__":
    app.deploy()
"""
CALLS = """
import json, sys
from datetime import date
from apothic import RemoteFunction, SerializationError

odd, found = (date(2024, 2, 29), {1, 2}), {}
for minor in sys.argv[1:]:
    name = "skew-" + minor.replace(".", "")
    where, apply = (RemoteFunction.from_name(name, function) for function in ("where", "apply"))
    try:
        code = apply.remote(lambda value: value + 1, 1)
    except SerializationError as error:
        code = error.code
    found[minor] = [*where.remote({"a": [1, None]}), where.remote(odd)[1] == odd, code]
print(json.dumps(found))
"""


IMPORT_ALL = """
import importlib, pkgutil
import apothic
for module in pkgutil.walk_packages(apothic.__path__, "apothic."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_of_the_client_can_be_imported_by_every_python(stranger):
    for python in _interpreters().values():
        stranger.run(python, "-S", "-c", IMPORT_ALL, env=_environment()).ok()


def test_every_client_calls_functions_of_every_python_or_is_told_why_not(stranger, request):
    pythons = _interpreters()
    missing = [minor for minor in SUPPORTED if minor not in pythons]
    if missing:
        note(request.config, f"version skew not tested with Python {', '.join(missing)}: not on this machine")
    folders = os.pathsep.join(str(Path(python).parent) for python in pythons.values())
    person = dataclasses.replace(stranger, prefix=("env", f"PATH={folders}{os.pathsep}{os.environ['PATH']}"))
    cloud = RunningCloud(person)
    try:
        environment = _environment()
        app, calls = person.write("skewed.py", APP), person.write("calls.py", CALLS)
        for python in pythons.values():
            person.run(python, "-S", app, env=environment).ok()
        for minor, python in pythons.items():
            found = person.run(python, "-S", calls, *pythons, env=environment).ok().json
            assert found == {
                other: [other, {"a": [1, None]}, True, 2 if other == minor else "python_mismatch"] for other in pythons
            }
    finally:
        cloud.close()


def _environment():
    """The client's own source and what it needs, for any Python."""
    packages = [str(Path(apothic.__file__).parents[1]), sysconfig.get_path("purelib")]
    return {"PYTHONPATH": os.pathsep.join(packages), "APOTHIC_QUIET": "1"}


def _interpreters():
    """Return the supported interpreters of this machine by their version; wrappers that start others are none."""
    found = {}
    on_path = [path for minor in SUPPORTED if (path := shutil.which(f"python{minor}"))]
    kept = [
        str(path) for minor in SUPPORTED for path in Path.home().glob(f".pyenv/versions/{minor}.*/bin/python{minor}")
    ]
    for path in [*kept, *on_path]:
        with Path(path).open("rb") as program:
            if program.read(2) == b"#!":
                continue
        told = "import sys, json; print(json.dumps(['%d.%d' % sys.version_info[:2], sys.prefix == sys.base_prefix]))"
        minor, is_base = json.loads(subprocess.run([path, "-c", told], capture_output=True, check=True).stdout)
        if is_base:
            found.setdefault(minor, path)
    return dict(sorted(found.items()))
