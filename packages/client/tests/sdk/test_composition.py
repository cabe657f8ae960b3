"""Apps of several parts: local entrypoints, included apps, namespaces; and handles of apps that exist."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apothic import App, ConflictError, ControlPlaneClient, Deployment, InvalidRequestError, NotFoundError, RemoteApp
from apothic._loading import load_file, load_module

from .conftest import DEPLOYMENT, FUNCTION, TIME, ScriptedServer, check, deployment_json, function_json

SHOP = """
from apothic import App
from parts_of_shop import billing

app = App("shop").include(billing, namespace="money")

@app.function()
def greet(name: str) -> str:
    return f"hello, {name}"

@app.local_entrypoint()
def main(name: str = "world") -> str:
    return greet(name)

@app.local_entrypoint(name="later")
async def some_other(name: str) -> str:
    return name.upper()
"""
PARTS = """
from apothic import App
billing = App("billing")

@billing.function(cpu=2)
def charge(amount: int) -> int:
    return amount + 1
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Any]:
    """The module of an app that includes another one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shop_app.py").write_text(SHOP)
    (folder / "parts_of_shop.py").write_text(PARTS)
    known, path = set(sys.modules), list(sys.path)
    yield load_file(folder / "shop_app.py")
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_local_entrypoints_run_here_by_name_or_as_the_only_one(shop: Any) -> None:
    assert list(shop.app.local_entrypoints) == ["main", "later"]
    assert shop.app.run_local(entrypoint_name="main") == "hello, world"
    assert shop.app.run_local(entrypoint_name="later", args=["x"]) == "X"
    assert shop.main(name="me") == "hello, me"
    with pytest.raises(InvalidRequestError, match="main, later"):
        shop.app.run_local()
    with pytest.raises(NotFoundError, match="did you mean later"):
        shop.app.get_local_entrypoint("latr")
    with pytest.raises(NotFoundError, match="no local entrypoint"):
        App("bare").run_local()


def test_functions_entrypoints_and_namespaces_are_attributes(shop: Any) -> None:
    assert shop.app.greet is shop.app.functions["greet"]
    assert shop.app.main is shop.main
    assert shop.app.money.charge is shop.app.charge
    assert shop.app.money.charge(1) == 2
    assert list(shop.app.namespaces) == ["money"]
    with pytest.raises(AttributeError, match="did you mean greet"):
        _ = shop.app.gret
    with pytest.raises(AttributeError, match="did you mean charge"):
        _ = shop.app.money.chrge
    assert not hasattr(shop.app, "_ipython_display_")


def test_functions_of_an_included_app_are_deployed_and_called_through_the_one_that_includes_it(
    shop: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APOTHIC_BASE_URL", server.url)
    monkeypatch.setenv("APOTHIC_API_KEY", "lk_test")
    monkeypatch.setenv("APOTHIC_QUIET", "1")
    server.deploys()
    shop.app.deploy()
    body = next(json.loads(one.body) for one in server.received if "/deployments" in one.path)

    specs = {spec["name"]: spec for spec in body["manifest"]["functions"]}
    assert {name: spec["qualname"] for name, spec in specs.items()} == {"greet": "greet", "charge": "app.charge"}
    assert specs["charge"]["cpu"] == 2
    assert sorted(body["manifest"]["files"]) == ["parts_of_shop.py", "shop_app.py"]
    assert shop.app.charge.remote(1) == "hello, 1"
    assert [one.path for one in server.received if one.path.startswith("/v1/apps/")] == [
        "/v1/apps/shop/deployments?if_changed=true"
    ]


def test_what_cannot_be_included_is_refused_and_nothing_is_included(shop: Any) -> None:
    part, other, third = App("part"), App("other"), App("third")

    other.include(part)
    for where in (third, other):
        with pytest.raises(ConflictError, match="another one already"):
            where.include(part)
    with pytest.raises(ConflictError, match="includes this one"):
        part.include(other)
    for wrong in (third, None, "part"):
        with pytest.raises(InvalidRequestError, match="another App"):
            third.include(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="name"):
        third.include(App("x"), namespace="no name")
    with pytest.raises(ConflictError, match="greet"):
        shop.app.include(App("fine"), namespace="greet")
    assert dict(third.namespaces) == dict(third.functions) == {}


def test_a_runner_finds_the_function_of_an_included_app(shop: Any, tmp_path: Path) -> None:
    for name in ("shop_app", "parts_of_shop"):
        sys.modules.pop(name, None)
    module = load_module(tmp_path / "project", "shop_app")

    assert module.app.charge.python_function(1) == 2


@pytest.fixture
def stored_app(server: ScriptedServer) -> dict[str, Any]:
    """An app `shop` that is deployed on the scripted server, as it answers it."""
    app = {
        "app_id": "apps:" + "0" * 26, "name": "shop", "deployment_id": DEPLOYMENT, "version": 1,
        "functions": ["greet"], "created_at": TIME,
    }  # fmt: skip
    ended = check("DeploymentEnd", {"deployment": deployment_json(), "unfinished_jobs": 2})
    server.routes |= {
        "GET /v1/apps/shop": lambda wire, _: wire.answer(200, check("App", app)),
        "GET /v1/apps/shop/functions/greet": lambda wire, _: wire.answer(200, function_json()),
        f"GET /v1/deployments/{DEPLOYMENT}": lambda wire, _: wire.answer(200, deployment_json()),
        f"POST /v1/deployments/{DEPLOYMENT}/stop": lambda wire, _: wire.answer(200, ended),
        f"DELETE /v1/deployments/{DEPLOYMENT}": lambda wire, _: wire.answer(200, ended),
        "POST /v1/apps/shop/rollback": lambda wire, _: wire.answer(201, deployment_json(restored_from=1)),
    }
    return app


def test_a_looked_up_app_shows_functions_and_deployments(
    stored_app: dict[str, Any], client: ControlPlaneClient
) -> None:
    found = App.lookup("shop", client=client)
    live = found.deployment

    assert (found.name, list(found.functions), repr(found)) == ("shop", ["greet"], "<RemoteApp shop>")
    assert found.functions["greet"].function_id == FUNCTION
    assert (live.deployment_id, live.status(), live.stop(now=True), live.delete(force=True)) == (
        DEPLOYMENT, "active", 2, 2,
    )  # fmt: skip
    assert found.rollback(1).deployment_id == DEPLOYMENT
    assert found.client is live.client is client
    stored_app["deployment_id"] = None
    with pytest.raises(ConflictError, match="stopped"):
        _ = found.deployment
    with pytest.raises(InvalidRequestError):
        Deployment("", client)
    with pytest.raises(InvalidRequestError):
        RemoteApp("", client)


def test_handles_do_the_same_for_asyncio(
    stored_app: dict[str, Any], server: ScriptedServer, client: ControlPlaneClient
) -> None:
    found = RemoteApp("shop", client).aio

    async def use() -> list[Any]:
        live = (await found.deployment()).aio
        return [
            found.name,
            list(await found.functions()),
            (await found.info()).version,
            (await found.rollback(1)).deployment_id,
            live.deployment_id,
            await live.status(),
            await live.stop(now=True),
            await live.delete(force=True),
        ]

    assert asyncio.run(use()) == ["shop", ["greet"], 1, DEPLOYMENT, DEPLOYMENT, "active", 2, 2]
    assert {one.path.partition("?")[2] for one in server.received if "deployments:" in one.path} == {"", "now=true"}
    stored_app["deployment_id"] = None
    with pytest.raises(ConflictError, match="stopped"):
        asyncio.run(found.deployment())


def test_handles_watch_blocking_and_for_asyncio(server: ScriptedServer, client: ControlPlaneClient) -> None:
    deployed = {"deployment_id": DEPLOYMENT, "version": 1, "previous_deployment_id": None, "time": TIME}

    def stream(wire: Any, _: Any) -> bool:
        wire.begin_events()
        wire.event(4, "app.deployed", deployed)
        return False

    server.routes["GET /v1/apps/shop/events"] = stream
    app, deployment = RemoteApp("shop", client), Deployment(DEPLOYMENT, client)

    async def first(events: Any) -> Any:
        async with contextlib.aclosing(events):
            return await anext(events)

    with contextlib.closing(app.watch(last_index=3)) as events:
        assert next(events).index == 4
    assert asyncio.run(first(app.aio.watch(last_index=3))).index == 4
    for wrong in ({"last_index": "x"}, {"event_types": ["job.log"]}):
        for handle in (app, app.aio, deployment, deployment.aio):
            with pytest.raises(InvalidRequestError):
                handle.watch(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [RemoteApp, Deployment], ids=lambda kind: kind.__name__)
def test_the_asyncio_handle_has_every_name_of_the_blocking_one(kind: Any, client: ControlPlaneClient) -> None:
    def names(of: object) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")} - {"aio"}

    assert names(kind("x", client)) == names(kind("x", client).aio)
