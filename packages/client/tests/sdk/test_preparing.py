"""Having the environments of a deployment made ready, and waiting for it."""

import asyncio
from typing import Any

import pytest

from apothic import (
    ControlPlaneClient,
    Deployment,
    InvalidRequestError,
    JobTimeoutError,
    NotSupportedError,
    RemoteExecutionError,
)

from .conftest import DEPLOYMENT, ScriptedServer, Wire, check

ROUTE = f"PUT /v1/deployments/{DEPLOYMENT}/preparation"


def preparation(status: str, **more: Any) -> dict[str, Any]:
    entry = {"environment": "0" * 32, "functions": ["greet"], "status": status, "worker": "local"}
    entry |= {"reason": None, "error": None, **more}
    return check("Preparation", {"deployment_id": DEPLOYMENT, "status": status, "environments": [entry]})


@pytest.fixture
def says(server: ScriptedServer):
    """Let the server say one thing after the other; the last one for ever. None breaks the connection instead."""

    def script(*answers: dict[str, Any] | None) -> None:
        left = list(answers)

        def answer(wire: Wire, _: Any) -> None:
            found = left.pop(0) if len(left) > 1 else left[0]
            if found is None:
                wire.sock.close()
            else:
                wire.answer(200, found)

        server.routes[ROUTE] = answer

    return script


def error(code: str) -> dict[str, str]:
    return {"code": code, "message": "no wheel"}


WAITING = preparation("waiting", worker=None, reason="no worker is connected")


def test_one_asks_and_waits_until_it_is_ready(server: ScriptedServer, client: ControlPlaneClient, says) -> None:
    says(WAITING, preparation("building"), preparation("ready"))
    deployment = Deployment(DEPLOYMENT, client)
    first = deployment.prepare()
    ready = deployment.wait_ready(timeout_s=60)

    assert (first.status, first.environments[0].reason) == ("waiting", "no worker is connected")
    assert (ready.status, ready.environments[0].worker) == ("ready", "local")
    assert len(server.received) == 3


def test_asyncio_waits_too(client: ControlPlaneClient, says) -> None:
    says(preparation("building"), preparation("building"), preparation("ready"))

    async def wait() -> tuple[str, str]:
        aio = Deployment(DEPLOYMENT, client).aio
        return (await aio.prepare()).status, (await aio.wait_ready()).status

    assert asyncio.run(wait()) == ("building", "ready")


@pytest.mark.parametrize(
    ("code", "kind"), [("image_build_failed", RemoteExecutionError), ("image_needs_builder", NotSupportedError)]
)
def test_what_failed_is_raised(client: ControlPlaneClient, says, code: str, kind: type[Exception]) -> None:
    says(preparation("building"), preparation("failed", error=error(code)))

    with pytest.raises(kind, match="no wheel") as failed:
        Deployment(DEPLOYMENT, client).wait_ready()
    assert getattr(failed.value, "code", None) == code


def test_a_wait_that_is_too_short_says_why(client: ControlPlaneClient, says) -> None:
    says(WAITING)

    with pytest.raises(JobTimeoutError, match=r"not ready after 0\.01 s: no worker is connected"):
        Deployment(DEPLOYMENT, client).wait_ready(timeout_s=0.01)


def test_a_server_that_is_away_for_a_while_is_asked_again(client: ControlPlaneClient, says) -> None:
    says(preparation("building"), *[None] * 5, preparation("ready"))

    assert Deployment(DEPLOYMENT, client).wait_ready().status == "ready"


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), 86_401, "1", True])
def test_an_impossible_wait_is_refused(client: ControlPlaneClient, timeout_s: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout_s"):
        Deployment(DEPLOYMENT, client).wait_ready(timeout_s=timeout_s)
