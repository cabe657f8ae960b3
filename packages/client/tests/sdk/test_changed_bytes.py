"""A second deploy sends what changed; when the server cannot use that, all is sent."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from apothic._loading import load_file
from apothic.wire.archive_parts import PARTS_TYPE

from .conftest import DEPLOYMENT, TIME, Received, ScriptedServer, Wire, check, deployment_json, function_json

APP = """
from apothic import App
import big
app = App("hello-world")

@app.function()
def greet(name: str) -> str:
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that is not the home folder, in which a module of 100 kB stands beside the app."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "near.py").write_text(APP)
    (folder / "big.py").write_text("#" * 100_000)
    return folder


@pytest.fixture
def app(project: Path) -> Iterator[ModuleType]:
    """The module of the app."""
    known, path = set(sys.modules), list(sys.path)
    yield load_file(project / "near.py")
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def archives(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The archives of a server that says what is live."""
    monkeypatch.setenv("APOTHIC_BASE_URL", server.url)
    monkeypatch.setenv("APOTHIC_API_KEY", "lk_test")
    found = server.deploys()

    def deploys() -> list[dict[str, Any]]:
        return [json.loads(one.body) for one in server.received if one.path.endswith("if_changed=true")]

    def live_app(wire: Wire, _: Received) -> None:
        if not deploys():
            wire.refuse(404, "not_found")
            return
        known = {"app_id": "apps:" + "0" * 26, "name": "hello-world", "deployment_id": DEPLOYMENT, "version": 1}
        wire.answer(200, check("App", {**known, "functions": ["greet"], "created_at": TIME}))

    def live(wire: Wire, _: Received) -> None:
        told = deploys()[-1]
        wire.answer(200, deployment_json(functions=[function_json("greet")], **told))

    server.routes["GET /v1/apps/hello-world"] = live_app
    server.routes[f"GET /v1/deployments/{DEPLOYMENT}"] = live
    return found


def uploads(server: ScriptedServer) -> list[tuple[bool, int]]:
    """Whether each upload was one of parts, and its bytes."""
    found = [one for one in server.received if one.method == "PUT"]
    return [(one.headers["content-type"] == PARTS_TYPE, len(one.body)) for one in found]


def test_the_second_deploy_sends_the_changed_file_only(
    app: ModuleType,
    archives: dict[str, bytes],
    server: ScriptedServer,
    project: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    app.app.deploy()
    (project / "near.py").write_text(APP + "# changed\n")
    app.app.deploy()
    (whole, first), (parts, second) = uploads(server)
    said = capfd.readouterr().err.splitlines()

    assert (whole, parts) == (False, True)
    assert first > 100_000
    assert second < 15_000
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in archives.items())
    assert len(archives) == 2
    assert said[1].startswith("uploads ")
    assert f" bytes of 2 files, {100_000 + len(APP) + 10:,} bytes: big.py, near.py" in said[1]


@pytest.mark.parametrize(
    "refusal",
    [(404, "not_found"), (409, "archive_missing"), (415, "unsupported_media_type"), (422, "digest_mismatch")],
    ids=str,
)
def test_what_a_server_cannot_make_of_parts_is_sent_whole(
    app: ModuleType,
    archives: dict[str, bytes],
    server: ScriptedServer,
    project: Path,
    refusal: tuple[int, str],
) -> None:
    app.app.deploy()
    (project / "near.py").write_text(APP + "# changed\n")
    plain = server.scripts[0]

    def refuse_parts(wire: Wire, request: Received) -> Any:
        if request.headers.get("content-type") == PARTS_TYPE:
            return wire.refuse(*refusal)
        return plain(wire, request)

    server.scripts = type(server.scripts)(refuse_parts)  # type: ignore[arg-type]
    app.app.deploy()

    assert [is_parts for is_parts, _ in uploads(server)] == [False, True, False]
    assert len(archives) == 2
