"""Decorating and deploying: what is refused where it is written, and what a deploy sends."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from apothic import (
    App,
    BatchingSpec,
    ConflictError,
    ControlPlaneClient,
    Function,
    InvalidRequestError,
    Job,
    NotDeployedError,
    NotSupportedError,
    Period,
    RemoteFunction,
    Retries,
)
from apothic._loading import load_file
from apothic.options import batching_of
from apothic.wire.functions import BatchSpec

from .conftest import DEPLOYMENT, FUNCTION, JOB, Received, ScriptedServer, Wire, check, function_json

SAMPLE = Path(__file__).parents[4] / "examples" / "hello_world.py"
APP_FILE = """
from apothic import App, Retries
app = App("hello-world")

@app.function(cpu=2, timeout_s=60, retries=Retries(max_retries=3, initial_delay=5), gpu=["RTX_4070", "RTX_3080"])
def greet(name: str) -> str:
    "Greet somebody."
    return f"hello, {name}"

@app.function(offer_filters={"gpu_ram": {"gte": 24000, "lt": 48000}})
async def later(name: str) -> str:
    return name
"""


def plain(name: str) -> str:
    return name


def decorate(**options: Any) -> Function[..., Any]:
    return App("a").function(**options)(plain)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], ModuleType]:
    """Import text as a module, as `import` does."""

    def do(text: str, name: str = "hello_app") -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    known = set(sys.modules)
    yield do
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def configured(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at the scripted server, as a user does."""
    monkeypatch.setenv("APOTHIC_BASE_URL", server.url)
    monkeypatch.setenv("APOTHIC_API_KEY", "lk_test")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 64, "ä", None, 1])
def test_an_app_name_must_follow_the_rule(name: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^name: .*must be 1 to 63 letters"):
        App(name)


WRONG_OPTIONS: list[tuple[str, Any]] = [
    ("cpu", 0), ("cpu", 1.0), ("cpu", True), ("cpu", "1"), ("cpu", 1025), ("memory_mb", 31), ("memory_mb", None),
    ("timeout_s", 0), ("timeout_s", 604_801), ("timeout_s", 1.5),
    ("queue_timeout_s", 0), ("queue_timeout_s", None), ("startup_timeout_s", 0.5), ("startup_timeout_s", True),
    ("deadline_s", 0), ("deadline_s", 604_801), ("deadline_s", "60"), ("max_retries", -1), ("max_retries", 101),
    ("disconnect_grace_s", -1), ("disconnect_grace_s", 86_401), ("disconnect_grace_s", None),
    ("at_most_once", 1), ("at_most_once", None),
    ("retries", True), ("retries", "3"), ("retries", -1), ("concurrent_requests", 0), ("max_pending_tasks", 0),
    ("max_containers", 10_001), ("tasks_per_container", 1_001), ("gpu", ""), ("gpu", []), ("gpu", [1]), ("gpu", 7),
    ("gpu_count", 0), ("gpu_count", 1.0), ("min_vram_gb", "8"), ("geolocation", [""]), ("disk_gb", -1),
    ("disk_gb", float("nan")), ("disk_gb", float("inf")), ("disk_gb", True), ("disk_gb", 10**400),
    ("max_cost_per_hour_usd", "1"), ("secure_cloud_only", 1), ("min_cpu_ghz", [1]),
    ("offer_filters", []), ("offer_filters", {"a": 1}), ("offer_filters", {"a": {}}), ("offer_filters", {1: {"eq": 1}}),
    ("offer_filters", {"a b": {"eq": 1}}), ("offer_filters", {"a": {"like": 1}}), ("offer_filters", {"a": {"gt": "1"}}),
    ("offer_filters", {"a": {(1,): 1}}), ("offer_filters", {"a": {"in": 1}}), ("offer_filters", {"a": {"in": []}}),
    ("offer_filters", {"a": {"notin": [[]]}}),
    ("offer_filters", {"a": {"eq": None}}), ("offer_filters", {"a": {"eq": float("nan")}}),
    ("offer_filters", {"a": {"eq": "x" * 40_000}}), ("batching", 32), ("batching", {"max_batch_size": 32}),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), WRONG_OPTIONS)
def test_a_wrong_option_is_refused_by_the_decorator_and_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{option}") as caught:
        decorate(**{option: value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "options", [(0,), (1_001,), (2.0,), (True,), (None,), (8, -1), (8, 600_001), (8, 0.5)], ids=str
)
def test_a_batching_spec_has_its_bounds(options: tuple[Any, ...]) -> None:
    name = "max_batch_size" if len(options) == 1 else "wait_ms"
    with pytest.raises(InvalidRequestError, match=rf"^{name}: .*must be a whole number from"):
        BatchingSpec(*options)


@pytest.mark.parametrize(
    "more", [{"tasks_per_container": 2}, {"concurrent_requests": 2}, {"schedule": Period(hours=1)}], ids=str
)
def test_batching_says_what_it_excludes(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=f"^batching and {next(iter(more))} exclude each other"):
        decorate(batching=BatchingSpec(8), **more)


def test_batching_needs_a_function_that_takes_lists_and_returns_one() -> None:
    def nothing() -> list[int]:
        return []

    def numbers(items: list[int]) -> Iterator[int]:
        yield from items

    with pytest.raises(InvalidRequestError, match=r"nothing has batching and no parameter"):
        batching_of(BatchingSpec(8), nothing)
    with pytest.raises(InvalidRequestError, match=r"numbers yields items and has batching"):
        batching_of(BatchingSpec(8), numbers)


def double(items: list[int], by: list[int] | int = 2) -> list[Any]:
    found = [item * factor for item, factor in zip(items, [by] if isinstance(by, int) else by, strict=True)]
    return [ValueError("no zero") if item == 0 else item for item in found] if items != [7] else [1, 2]


async def double_later(items: list[int]) -> list[Any]:
    return double(items)


def test_local_executes_one_call_as_a_batch_of_one() -> None:
    batched: Any = App("a").function(batching=BatchingSpec(8, 50))(double)
    later: Any = App("b").function(batching=BatchingSpec(8))(double_later)

    assert batched.batching == BatchingSpec(max_batch_size=8, wait_ms=50)
    assert batched.spec.batching == BatchSpec(8, 50)
    assert (batched([3]), batched.local(3), batched.local(3, by=5)) == ([6], 6, 15)
    assert (asyncio.run(later([3])), asyncio.run(later.local(4))) == ([6], 8)
    with pytest.raises(ValueError, match="no zero"):
        batched.local(0)
    with pytest.raises(ValueError, match="returned 2 results for a batch of 1"):
        batched.local(7)


@pytest.mark.parametrize("option", ["liv", "secrets", "volumes"])
def test_what_this_release_cannot_do_is_refused_and_never_ignored(option: str) -> None:
    assert decorate(**{option: None}).name == "plain"
    with pytest.raises(NotSupportedError, match=f"^{option}: ") as caught:
        decorate(**{option: []})
    assert caught.value.code == "not_supported"


@pytest.mark.parametrize(
    "bad", [{"max_retries": 101}, {"backoff_coefficient": 0.5}, {"initial_delay": -1}, {"max_delay": 0.5}]
)
def test_retries_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(bad))):
        Retries(**{"max_retries": 1, **bad})


def test_retries_win_over_max_retries() -> None:
    assert decorate(retries=2, max_retries=5).options.retries == Retries(max_retries=2)
    assert decorate(max_retries=5).options.retries == Retries(max_retries=5)
    assert decorate().options.retries is None


@pytest.mark.parametrize("retries", [{"retries": 1}, {"retries": Retries(max_retries=1)}, {"max_retries": 1}])
def test_at_most_once_and_retries_exclude_each_other(retries: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"^at_most_once and retries exclude each other"):
        decorate(at_most_once=True, **retries)
    assert decorate(at_most_once=True, retries=0).options.at_most_once


def test_a_function_must_be_where_runners_find_it() -> None:
    app = App("a")

    def local() -> None: ...

    for wrong in (local, lambda: None, print, 7, App, staticmethod(plain)):
        with pytest.raises(InvalidRequestError):
            app.function()(wrong)
    with pytest.raises(InvalidRequestError, match="not in the file of the app"):
        app.function()(check)
    assert dict(app.functions) == {}


def test_a_decorator_without_parentheses_says_so() -> None:
    with pytest.raises(InvalidRequestError, match=r"Write @app\.function\(\) with parentheses"):
        App("a").function(plain)


def test_methods_are_refused_where_they_are_written(load: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"Shop\.sell is a method"):
        load('from apothic import App\napp = App("a")\nclass Shop:\n    @app.function()\n    def sell(self): ...\n')


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_that_yields_is_deployed_as_a_generator(load: Any, keyword: str) -> None:
    module = load(f'from apothic import App\napp = App("a")\n@app.function()\n{keyword} f():\n    yield 1\n')

    assert (module.f.spec.is_generator, module.f.spec.is_async) == (True, keyword == "async def")
    with pytest.raises(InvalidRequestError, match="remote_gen") as caught:
        module.f.remote()
    assert caught.value.code == "is_a_generator"


def test_items_of_a_function_that_yields_none_are_refused_before_anything_runs(load: Any) -> None:
    module = load('from apothic import App\napp = App("a")\n@app.function()\ndef f():\n    return [1]\n')

    with pytest.raises(InvalidRequestError, match="yields no items") as caught:
        module.f.remote_gen()
    assert caught.value.code == "not_a_generator"


def test_two_functions_of_one_name_are_refused() -> None:
    app = App("a")
    app.function()(plain)

    with pytest.raises(ConflictError, match="plain") as caught:
        app.function()(plain)
    assert caught.value.code == "duplicate_name"


def test_a_handle_is_the_function_it_wraps(load: Any) -> None:
    module = load(APP_FILE)
    greet = module.greet

    assert greet("you") == greet.local("you") == greet.python_function("you") == "hello, you"
    assert asyncio.run(module.later("x")) == "x"
    assert (greet.__name__, greet.__doc__, greet.kind, greet.schedule) == ("greet", "Greet somebody.", "function", None)
    assert greet.service_url is None
    assert greet.options.cpu == 2
    assert greet.options.concurrency.max_pending_tasks == 100
    assert module.app.functions["greet"] is greet
    with pytest.raises(TypeError):
        module.app.functions["x"] = greet
    with pytest.raises(InvalidRequestError) as caught:
        greet.get_web_url()
    assert caught.value.code == "not_a_service"


def test_calls_before_a_deploy_say_so(load: Any) -> None:
    module = load(APP_FILE)
    for call in (module.greet.remote, module.greet.spawn, lambda x: asyncio.run(module.greet.aio.remote(x))):
        with pytest.raises(NotDeployedError, match=r"call app\.deploy\(\) first"):
            call("x")
    assert module.app.deployment_id is None


def test_the_manifest_says_what_the_decorators_say(load: Any, contract: dict[str, Any]) -> None:
    manifest = load(APP_FILE).app.manifest()
    check("Manifest", json.loads(json.dumps(asdict(manifest))))
    greet, later = manifest.functions

    assert (manifest.module, manifest.app_variable) == ("hello_app", "app")
    assert (greet.name, greet.qualname, greet.cpu, greet.timeout_s, greet.is_async) == ("greet", "greet", 2, 60, False)
    assert (greet.max_retries, greet.retry_initial_delay_s, greet.retry_max_delay_s) == (3, 5.0, 60.0)
    assert greet.placement == {"gpu": ["RTX_4070", "RTX_3080"]}
    assert (later.is_async, later.placement) == (True, {"offer_filters": {"gpu_ram": {"gte": 24000, "lt": 48000}}})


def test_a_deploy_uploads_the_file_once_and_then_calls_work(
    load: Any, server: ScriptedServer, configured: None, capfd: pytest.CaptureFixture[str]
) -> None:
    archives = server.deploys()
    module = load(APP_FILE)
    first, again = module.app.deploy(), asyncio.run(module.app.aio.deploy())
    (archive,) = archives.values()
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        names = packed.getnames()
    out, err = capfd.readouterr()

    assert first == again == module.app.deployment_id == DEPLOYMENT
    assert names == ["hello_app.py"]
    assert out == ""
    assert err.splitlines() == [
        f"uploads 1 file, {len(APP_FILE)} bytes: hello_app.py",
        f"uploads nothing, the server has 1 file, {len(APP_FILE)} bytes: hello_app.py",
    ]
    assert module.greet.remote("world") == "hello, world"
    assert asyncio.run(module.greet.aio.remote("world")) == "hello, world"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_deployed_handle_streams_the_events_of_its_call(
    load: Any, server: ScriptedServer, configured: None, is_async: bool
) -> None:
    def events(wire: Wire, _: Received) -> None:
        wire.begin_events()
        wire.event(0, "job.queued")
        wire.event(1, "job.end")
        wire.end_stream()

    async def gather(found: Any) -> list[Any]:
        return [event async for event in found]

    module = load(APP_FILE)
    handle = module.greet.aio if is_async else module.greet
    with pytest.raises(NotDeployedError):
        handle.remote_events("world")
    server.deploys()
    server.routes[f"POST /v1/functions/{FUNCTION}/calls"] = lambda wire, _: wire.answer(
        202, {"job_id": JOB, "status": "queued"}
    )
    server.routes[f"GET /v1/jobs/{JOB}/events"] = events
    module.app.deploy()
    found = handle.remote_events("world")

    assert [event.index for event in (asyncio.run(gather(found)) if is_async else found)] == [0, 1]


def test_quiet_deploys_say_nothing(
    load: Any,
    server: ScriptedServer,
    configured: None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APOTHIC_QUIET", "1")
    server.deploys()
    module = load(APP_FILE)
    module.app.deploy()

    assert capfd.readouterr() == ("", "")


def test_an_archive_that_vanished_is_uploaded_again(load: Any, server: ScriptedServer, configured: None) -> None:
    archives = server.deploys()
    module = load(APP_FILE)
    module.app.deploy()
    refusals = [True]
    serve = server.scripts.pop()

    def vanish(wire: Wire, request: Received) -> None:
        if refusals:
            refusals.pop()
            archives.clear()
            wire.refuse(409, "archive_missing")
            return
        serve(wire, request)

    server.routes["POST /v1/apps/hello-world/deployments"] = vanish

    assert module.app.deploy() == DEPLOYMENT
    assert len(archives) == 1


def test_an_empty_app_is_not_deployed(load: Any, configured: None, server: ScriptedServer) -> None:
    app = load('from apothic import App\napp = App("a")\n').app

    with pytest.raises(InvalidRequestError, match="no functions") as caught:
        app.deploy()
    assert caught.value.code == "empty_app"
    assert server.received == []


def test_an_app_that_no_variable_holds_is_not_deployed(load: Any, configured: None) -> None:
    module = load(APP_FILE)
    app = module.app
    del module.app

    with pytest.raises(InvalidRequestError) as caught:
        app.deploy()
    assert caught.value.code == "app_not_found"


def test_an_app_typed_at_a_prompt_is_not_deployed(server: ScriptedServer) -> None:
    text = (
        "from apothic import App, ApothicError\napp = App('a')\n@app.function()\ndef f(): ...\n"
        "try:\n    app.deploy()\nexcept ApothicError as error:\n    print(error.code)\n"
    )
    for arguments, given in ((["-c", text], None), (["-"], text)):
        done = run(arguments, server, given)
        assert (done.stdout, done.stderr, done.returncode) == ("no_app_file\n", "", 0)
    assert server.received == []


def test_loading_an_app_file_neither_deploys_nor_calls(load: Any, server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "sample_app.py"
    path.write_text(SAMPLE.read_text())
    module = load_file(path)

    assert list(module.app.functions) == ["greet"]
    assert not hasattr(module, "remote")
    assert server.received == []


def test_looking_up_a_function_while_a_file_is_loaded_asks_nobody(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "looking.py"
    path.write_text(
        "from apothic import RemoteFunction\nremote = RemoteFunction.from_name('other', 'f')\nremote.remote()\nx = 1\n"
    )
    module = load_file(path)

    assert (module.remote.name, module.remote.app_name) == ("f", "other")
    assert not hasattr(module, "x")


def run(arguments: list[str], server: ScriptedServer, given: str | None = None) -> Any:
    env = {
        "APOTHIC_BASE_URL": server.url,
        "APOTHIC_API_KEY": "lk_test",
        "HOME": "/nonexistent",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments], env=env, input=given, capture_output=True, text=True, timeout=30
    )


def test_the_sample_runs_as_a_script(server: ScriptedServer, tmp_path: Path) -> None:
    archives = server.deploys()
    script = tmp_path / "hello_world.py"
    script.write_text(SAMPLE.read_text())
    done = run([str(script)], server)

    assert done.stdout == f"{DEPLOYMENT}\nhello, world\n"
    assert done.stderr == f"uploads 1 file, {script.stat().st_size} bytes: hello_world.py\n"
    assert done.returncode == 0
    assert len(archives) == 1
    assert {request.headers["authorization"] for request in server.received} == {"Bearer lk_test"}


def test_a_looked_up_function_shows_what_was_deployed(server: ScriptedServer, client: ControlPlaneClient) -> None:
    info = function_json(max_retries=2, retry_initial_delay_s=5, timeout_s=7, deadline_s=90, disconnect_grace_s=600)
    info |= {"tasks_per_container": 3, "batching": {"max_batch_size": 32, "wait_ms": 50}}
    server.scripts.append(lambda wire, _: wire.answer(200, info))
    remote = Function.from_name("hello-world", "greet", client=client)

    assert isinstance(remote, RemoteFunction)
    assert (remote.name, remote.app_name, remote.kind, remote.timeout_s) == ("greet", "hello-world", "function", 7)
    assert (remote.at_most_once, remote.disconnect_grace_s) == (False, 600)
    assert (remote.queue_timeout_s, remote.startup_timeout_s, remote.deadline_s) == (86_400, 60, 90)
    assert remote.function_id.startswith("functions:")
    assert remote.retries == Retries(max_retries=2, initial_delay=5.0)
    assert remote.concurrency is not None
    assert remote.concurrency.tasks_per_container == 3
    assert (remote.schedule, remote.service_url, remote.batching) == (None, None, BatchingSpec(32, 50))
    with pytest.raises(InvalidRequestError):
        remote.get_web_url()


def test_a_job_needs_an_id(client: ControlPlaneClient) -> None:
    assert Job(JOB, client).job_id == JOB
    for wrong in ("", None, 1):
        with pytest.raises(InvalidRequestError, match="job_id"):
            Job(wrong, client)


@pytest.mark.parametrize(
    ("written", "meant"), [("gpu_rma", "gpu_ram"), ("cpu_core", "cpu_cores"), ("Gpu_Name", "gpu_name")]
)
def test_a_field_of_offers_that_is_misspelled_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{written}.*did you mean '{meant}'"):
        App("shop").function(offer_filters={written: {"neq": 1}})
    decorate(offer_filters={meant: {"neq": 1}, "shelf": {"eq": "upper"}})


@pytest.mark.parametrize(
    ("written", "meant"),
    [(">=", "gte"), ("not in", "notin"), ("ne", "neq"), ("GTE", "gte"), ("NOT IN", "notin"), ("ltee", "lte")],
)
def test_an_operator_written_in_another_way_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"did you mean '{meant}'"):
        App("shop").function(offer_filters={"gpu_ram": {written: 1}})
