"""The runtime on every CPython from 3.10 on that this machine has, with nothing else installed."""

from __future__ import annotations

import json
import subprocess
import sys

from apothic_server.testing.guarantees import guarantee
from apothic_server.testing.skips import note

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")

IMPORT_ALL = """
import json, sys
sys.path.append(sys.argv[1])
import pkgutil, importlib
import apothic._runtime, apothic.wire, apothic._serialize, apothic._loading
for package in (apothic._runtime, apothic.wire):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
names = {name.partition(".")[0] for name in sys.modules}
foreign = sorted(names - set(sys.stdlib_module_names) - {"__main__", "apothic"})
inside = sorted({".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("apothic.")})
print(json.dumps([foreign, inside]))
"""

APP = """
    import asyncio, os

    def add(a, b):
        return a + b

    async def later(value):
        await asyncio.sleep(0)
        print("printed", value)
        return {value}

    def fail():
        raise ValueError("as expected")

    def spin():
        try:
            print("spinning")
            while True:
                pass
        finally:
            print("over")
"""


def test_every_supported_interpreter_is_looked_for(request, pythons) -> None:
    missing = sorted(set(SUPPORTED) - set(pythons))
    if missing:
        note(request.config, f"runtime not tested on Python {', '.join(missing)}: not on this machine")
    assert pythons


def test_the_runtime_imports_the_standard_library_and_its_own_parts_only(pythons, tree) -> None:
    for python in pythons.values():
        found = subprocess.run(
            [python, "-I", "-S", "-B", "-c", IMPORT_ALL, str(tree)], capture_output=True, check=True, text=True
        )
        foreign, inside = json.loads(found.stdout)
        assert foreign == []
        assert inside == [
            "apothic._batches",
            "apothic._large",
            "apothic._loading",
            "apothic._runtime",
            "apothic._serialize",
            "apothic.wire",
        ]


def test_the_zygote_starts_without_asyncio_and_without_third_party_modules(load) -> None:
    runner = load("import sys\ndef modules(): return sorted({n.partition('.')[0] for n in sys.modules})\n").start(
        "modules"
    )
    names = set(runner.result())
    assert not names & {"asyncio", "concurrent", "ssl", "http", "email", "unittest", "click", "rich"}
    assert names - set(sys.stdlib_module_names) - {"__main__"} == {"apothic", "app", "cloudpickle"}


DECLARES = """
    import sys
    from apothic import App

    app = App("declares")

    @app.function()
    def modules():
        return sorted(name for name in sys.modules if name.partition(".")[0] in ("apothic", "hashlib"))
"""
CALLS = f"""
    {DECLARES.strip()}

    @app.function()
    def outer(items):
        return [modules.remote() for _ in items]
"""


def test_what_calls_others_is_loaded_for_apps_that_seem_to(load) -> None:
    alone, calling = (set(load(text).start("modules").result()) for text in (DECLARES, CALLS))

    needed = {"apothic.client", "apothic._calls", "apothic._blocking", "apothic._maps"}
    assert not alone & (needed | {"apothic._deploy", "apothic._answers", "hashlib"})
    assert needed <= calling


def test_what_stands_for_a_module_need_not_be_one(load) -> None:
    text = """
        import sys

        class Odd:
            __slots__ = ("__file__", "__name__", "add")

        odd = Odd()
        odd.__file__, odd.__name__, odd.add = __file__, __name__, lambda a, b: a + b
        sys.modules[__name__] = odd
    """
    assert load(text).start("add").result(1, 2) == 3


def test_calls_work_on_every_interpreter(load, pythons) -> None:
    for python in pythons.values():
        worker = load(APP, python=python)
        assert worker.start("add").result(1, 2) == 3
        assert worker.start("fail").error()["message"] == "as expected"
        runner = worker.start("later", is_async=True)
        assert runner.call(7)[0]["encoding"] == "pickle"
        assert runner.printed(runner.out) == "printed 7\n"
        several = worker.start("later", is_async=True, tasks=2)
        assert several.call(8)[0] == {"kind": "log", "call": "c", "stream": "stdout", "text": "printed 8\n"}
        assert several.receive()[0]["kind"] == "result"


@guarantee("G4.2", "cancel_spares_neighbours")
def test_threads_are_cancelled_on_every_interpreter(load, pythons) -> None:
    for python in pythons.values():
        runner = load(APP, python=python).start("spin", tasks=2)
        runner.submit("c")
        assert runner.receive()[0]["text"] == "spinning\n"
        runner.send(kind="cancel", call="c")
        assert runner.receive()[0]["text"] == "over\n"
        assert runner.receive()[0]["error"]["code"] == "cancelled"
