"""`apothic deploy`."""

import hashlib
import importlib.metadata
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

HELLO = """\
from apothic import App, RemoteFunction

app = App("hello-world")


@app.function(cpu=1, memory_mb=512, timeout_s=60)
def greet(name: str) -> str:
    return f"hello, {name}"


deployment_id = app.deploy()
remote = RemoteFunction.from_name("hello-world", "greet")
print(deployment_id)
print(remote.remote("world"))
"""


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    file = tmp_path / "work" / "hello_world.py"
    file.parent.mkdir()
    file.write_text(HELLO)
    return file


@pytest.fixture
def archives(connected, shapes):
    """The archives uploaded to the scripted cloud, which answers for any digest."""
    found: dict[str, bytes] = {}

    class Script(dict):
        def get(self, key, default=None):
            method, path = key
            if not path.startswith("/v1/archives/"):
                return super().get(key, default)
            return (lambda _, asked: keep(asked)) if method == "PUT" else has(path.rpartition("/")[2])

    def has(digest):
        return shapes.Answer(200) if digest in found else shapes.refused(404, "not_found", "No such archive.")

    def keep(asked):
        found[asked.path.rpartition("/")[2]] = asked.body
        return shapes.Answer(201, {"sha256": asked.path.rpartition("/")[2], "size_bytes": len(asked.body)})

    connected.script = Script(connected.script)
    return found


def test_deploy_uploads_the_file_and_makes_a_deployment(connected, archives, run_process, hello, shapes):
    found = run_process("deploy", str(hello))

    assert found.code == 0
    assert found.out.splitlines() == [
        f"deployment  {shapes.DEPLOYMENT}",
        "app         hello-world version 3",
        "functions   greet",
        f"uploads     1 file, {len(HELLO)} bytes",
    ]
    [(digest, archive)] = archives.items()
    assert hashlib.sha256(archive).hexdigest() == digest
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["hello_world.py"]
    body = connected.last("POST", "/v1/apps/hello-world/deployments").json
    assert body["archive_sha256"] == digest
    assert (body["manifest"]["module"], body["manifest"]["app_variable"]) == ("hello_world", "app")
    assert [(one["name"], one["memory_mb"]) for one in body["manifest"]["functions"]] == [("greet", 512)]


def test_deploy_of_what_the_cloud_has_uploads_nothing(connected, archives, run_process, hello):
    run_process("deploy", str(hello))
    found = run_process("deploy", str(hello), "--json")

    assert found.json["archive_was_present"] is True
    assert len([request for request in connected.requests() if request.startswith("PUT")]) == 1


def test_the_file_runs_only_as_far_as_its_definitions(connected, archives, run_process, hello):
    hello.write_text('print("loading")\n' + HELLO.replace("deployment_id = app.deploy()", "app.deploy(); 1 / 0"))

    found = run_process("deploy", str(hello), "--json")

    assert found.code == 0
    assert found.json["app"] == "hello-world"
    assert found.err == "loading\n"


def test_an_app_in_a_package_is_deployed_under_its_full_name(connected, archives, run_process, tmp_path: Path):
    package = tmp_path / "project" / "src" / "packaged_shop"
    package.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    (package / "__init__.py").touch()
    (package / "prices.py").write_text("BASE = 1\n")
    (package / "app.py").write_text(HELLO.replace("from apothic", "from .prices import BASE\nfrom apothic", 1))

    found = run_process("deploy", str(package / "app.py"), "--json")

    assert found.code == 0
    assert found.json["module"] == "packaged_shop.app"
    assert [file["path"] for file in found.json["files"]] == [
        f"packaged_shop/{name}.py" for name in ("__init__", "app", "prices")
    ]


def test_dry_run_lists_files_and_talks_to_nobody(home, run_process, hello):
    size = hello.write_text(f"import near\n{HELLO}\ndef later():\n    import numpy_like_thing\n")
    (hello.parent / "near.py").write_text("X = 1\n")

    found = run_process("deploy", str(hello), "--dry-run")

    assert found.code == 0
    assert [line.split() for line in found.out.splitlines()] == [[str(size), "hello_world.py"], ["6", "near.py"]]
    assert f"Would upload 2 files, {size + 6} bytes." in found.err
    assert "Note: not installed here, so functions do not have it: numpy_like_thing" in found.err
    assert run_process("deploy", str(hello), "--dry-run", "--json").json["size_bytes"] == size + 6


def test_dry_run_lists_what_images_add(home, run_process, hello):
    model = hello.parent / "model.bin"
    model.write_bytes(b"12345")
    image = f"from apothic import Image\nwith_model = Image.debian_slim().add_local_file({str(model)!r})\n"
    hello.write_text(image + HELLO.replace("(cpu=1", "(image=with_model, cpu=1"))

    found = run_process("deploy", str(hello), "--dry-run", "--json")

    assert [file["path"] for file in found.json["files"]] == ["hello_world.py", "model.bin"]


@pytest.mark.parametrize(
    "text", ["1 / 0\n", "def broken(\n", "x = 1\n", HELLO.replace("memory_mb=512", "memory_mb=-1")]
)
def test_dry_run_tells_the_mistakes_of_a_file_as_a_deploy_does(connected, run_process, hello, text):
    hello.write_text(text)

    dry, real = run_process("deploy", str(hello), "--dry-run"), run_process("deploy", str(hello))

    assert (dry.code, dry.out, dry.err) == (real.code, "", real.err)
    assert dry.code == 8
    assert connected.asked == []


def test_functions_without_an_image_get_what_the_files_import_at_the_versions_here(
    connected, archives, run_process, hello
):
    version = importlib.metadata.version("pathspec")
    hello.write_text(
        "import apothic\nfrom apothic import App, Image\napp = App('hello-world')\n@app.function()\ndef greet():\n"
        "    import pathspec, numpy_like_thing\n@app.function(image=Image.debian_slim())\ndef bare(): ...\n"
    )
    shown = run_process("deploy", str(hello), "--dry-run")
    found = run_process("deploy", str(hello))
    manifest = connected.last("POST", "/v1/apps/hello-world/deployments").json["manifest"]
    images = {one["name"]: one["image"] for one in manifest["functions"]}

    assert f"packages    pathspec=={version}" in found.out.splitlines()
    assert f"Would install for functions without an image: pathspec=={version}." in shown.err
    assert "numpy_like_thing" in found.err
    assert (images["greet"]["requirements"], images["bare"]["requirements"]) == ([f"pathspec=={version}"], [])
    assert images["greet"]["python"] == manifest["python"]
    assert run_process("deploy", str(hello), "--json").json["packages"] == [f"pathspec=={version}"]


def test_nothing_is_said_of_packages_when_each_function_has_an_image(connected, archives, run_process, hello):
    hello.write_text(
        "from apothic import App, Image\napp = App('hello-world')\n@app.function(image=Image.debian_slim())\n"
        "def greet():\n    import pathspec, numpy_like_thing\n"
    )
    found = run_process("deploy", str(hello))

    assert found.code == 0
    assert "packages" not in found.out
    assert found.err == ""


def test_several_apps_need_a_variable(connected, archives, run_process, hello):
    hello.write_text(
        'from apothic import App\none = App("hello-world")\ntwo = App("two")\n@one.function()\ndef f(): ...\n'
    )

    found = run_process("deploy", str(hello))

    assert found.code == 8
    assert f"deploy {hello}:one or {hello}:two" in found.err
    assert run_process("deploy", f"{hello}:one").code == 0
    assert "it has one, two" in run_process("deploy", f"{hello}:three").err


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x = 1\ndef broken(:\n", "syntax_error", "hello_world.py:2: "),
        ("x = 1\n", "no_app", "defines no App"),
        ('from apothic import App\napp = App("empty")\n', "empty_app", "no functions"),
        ("x = 1\nimport nowhere_to_be_found\n", "load_failed", "hello_world.py:2: ModuleNotFoundError"),
        ("x = 1\n\nraise SystemExit(3)\n", "load_failed", "hello_world.py:3: SystemExit: 3\n    raise SystemExit(3)"),
        (
            'from apothic import App\napp = App("no name")\n',
            "invalid",
            "hello_world.py:2: name: 'no name' (str) is not allowed",
        ),
        ('from apothic import App\n@App("a").function(memry_mb=1)\ndef f(): ...\n', "load_failed", "mean memory_mb?"),
        ("from apothic import Image\nImage().uv_pip_instal('x')\n", "load_failed", "mean uv_pip_install"),
        ("from apothic import Crom\n", "load_failed", "mean Cron"),
    ],
)
def test_a_file_that_cannot_be_deployed_is_refused_before_anything_is_sent(
    connected, run_process, hello, text, code, says
):
    hello.write_text(text)

    found = run_process("deploy", str(hello))

    assert (found.code, found.out) == (8, "")
    assert says in found.err
    assert "Traceback" not in found.err
    assert run_process("deploy", str(hello), "--json").error["code"] == code
    assert connected.asked == []


def test_what_a_file_prints_while_it_is_loaded_never_mixes_with_the_document(connected, archives, run_process, hello):
    prints = "import os\nimport subprocess\nimport sys\nos.write(1, b'by number\\n')\n"
    prints += "subprocess.run(['echo', 'by a process'])\nsys.__stdout__.write('by its first name\\n')\n"
    hello.write_text(prints + HELLO)

    found = run_process("deploy", str(hello), "--json")

    assert found.json["app"] == "hello-world"
    assert {"by number", "by a process", "by its first name"} <= set(found.err.splitlines())


@pytest.mark.parametrize("command", ["deploy", "run"])
def test_a_file_that_cannot_be_looked_for_is_told(home, run, command):
    found = run(command, f"{'x' * 300}.py", "--json")

    assert (found.code, found.error["code"]) == (8, "file_unreadable")


def test_deploy_without_a_cloud_ends_with_9(home, run_process, hello):
    found = run_process("deploy", str(hello), "--json")

    assert found.code == 9
    assert json.loads(found.err)["error"]["code"] == "cloud_not_running"


def test_the_address_option_wins_over_the_environment(connected, archives, run_process, hello, monkeypatch):
    monkeypatch.setenv("APOTHIC_BASE_URL", "http://127.0.0.1:9")

    assert run_process("deploy", str(hello), "--base-url", connected.url).code == 0


def live(connected, shapes, **manifest):
    """Let the scripted cloud have a live version with this manifest."""
    app = {
        "app_id": "apps:01jc5v0000000000000000app1", "name": "hello-world", "deployment_id": shapes.DEPLOYMENT,
        "version": 3, "functions": ["greet"], "created_at": shapes.TIME,
    }  # fmt: skip
    connected.script["GET", "/v1/apps/hello-world"] = shapes.Answer(document=app)
    answer = shapes.deployment_document(manifest=shapes.manifest_document(**manifest))
    connected.script["GET", f"/v1/deployments/{shapes.DEPLOYMENT}"] = shapes.Answer(document=answer)


def changed(python: str) -> list[str]:
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        "~ function greet: cpu 2 → 1",
        f"~ python {python} → {mine}",
        "- file gone.py",
        "~ file hello_world.py",
    ]


def test_deploy_and_diff_say_what_differs_from_the_live_version(connected, archives, run_process, hello, shapes):
    live(connected, shapes)

    shown = run_process("diff", str(hello))
    done = run_process("deploy", str(hello))
    found = run_process("diff", str(hello), "--json").json["changes"]

    assert shown.out.splitlines() == changed("3.9")
    assert done.out.splitlines()[4:] == [f"  {line}" for line in changed("3.9")]
    assert found["options"] == {"greet": {"cpu": [2, 1]}}
    assert found["files"] == {"added": [], "removed": ["gone.py"], "changed": ["hello_world.py"]}
    assert len([asked for asked in connected.asked if asked.method in {"PUT", "POST"}]) == 2


def test_functions_that_come_and_go_are_named_and_files_may_be_unknown(connected, run_process, hello, shapes):
    hello.write_text(HELLO.replace("def greet(", "def welcome("))
    live(connected, shapes, python=f"{sys.version_info.major}.{sys.version_info.minor}", files={})

    found = run_process("diff", str(hello))

    assert found.out.splitlines() == ["+ function welcome", "- function greet", "? files cannot be compared"]


def test_a_deploy_that_changes_nothing_says_so(connected, archives, run_process, hello, shapes):
    connected.script["POST", "/v1/apps/hello-world/deployments"] = shapes.Answer(200, shapes.deployment_document())

    found = run_process("deploy", str(hello))
    asked = [asked.query for asked in connected.asked if asked.method == "POST"]
    run_process("deploy", str(hello), "--force")

    assert "app         hello-world version 3 is live already, and nothing changed" in found.out.splitlines()
    assert asked == ["if_changed=true"]
    assert connected.last("POST", "/v1/apps/hello-world/deployments").query == ""


def test_a_file_without_a_live_version_has_no_difference(connected, run_process, hello):
    found = run_process("diff", str(hello))

    assert (found.code, found.out) == (0, "")
    assert "no live version" in found.err


def test_versions_that_do_not_exist_are_told(connected, run):
    missing = run("diff", "hello-world", "--from", "9")
    older = run("diff", "hello-world", "--to", "2")

    assert (missing.code, older.code) == (5, 5)
    assert "has no version 9" in missing.err
    assert "Try:   `apothic history APP`" in missing.err
    assert "no version before 2" in older.err
    assert run("diff", "x.py", "--from", "1").code == 2
    assert run("rollback", "hello-world", "--to", "0").code == 2


def test_history_and_rollback_speak_of_versions(connected, run, shapes):
    listed = run("history", "hello-world").out.splitlines()
    back = run("rollback", "hello-world", "--to", "2")

    assert [line.split()[:3] for line in listed[1:]] == [["3", "active", "3"], ["2", "superseded", "2"]]
    assert back.out == f"{shapes.DEPLOYMENT} (app hello-world version 4 with the content of version 2) is active\n"
    assert connected.last("POST", "/v1/apps/hello-world/rollback").query == "version=2"


@pytest.fixture
def preparing(connected, archives, shapes):
    """Let the cloud say one thing after the other of how far the deployment is; the last one for ever."""

    def script(*statuses: str, **more):
        left = list(statuses)

        def answer(_, __):
            status = left.pop(0) if len(left) > 1 else left[0]
            entry = {"environment": "0" * 32, "functions": ["greet"], "status": status, "worker": "local"}
            entry |= {"reason": None, "error": None, **more}
            return shapes.Answer(
                document={"deployment_id": shapes.DEPLOYMENT, "status": status, "environments": [entry]}
            )

        connected.script["PUT", f"/v1/deployments/{shapes.DEPLOYMENT}/preparation"] = answer

    page = {"events": [], "last_index": 0, "is_final": False}
    connected.script["GET", f"/v1/deployments/{shapes.DEPLOYMENT}/events"] = shapes.Answer(document=page)
    return script


def test_a_deploy_can_wait_until_its_packages_are_installed(preparing, run_process, hello):
    preparing("building", "building", "ready")

    found = run_process("deploy", str(hello), "--wait")

    assert found.code == 0
    assert found.err.splitlines()[-1] == "greet: worker local installs the packages"
    assert found.out.splitlines()[-1] == "ready       on worker local"


def test_a_build_that_fails_ends_the_wait_with_its_last_lines(preparing, run_process, hello):
    preparing("failed", error={"code": "image_build_failed", "message": "no wheel\nuv says so"})

    found = run_process("deploy", str(hello), "--wait")
    told = run_process("deploy", str(hello), "--wait", "--json")

    assert found.code == told.code == 100
    assert "Error: no wheel\nuv says so [image_build_failed]" in found.err
    assert "deployment  deployments:" in found.out
    assert "is live all the same; `apothic rollback APP`" in found.err
    assert told.error["code"] == "image_build_failed"
    assert told.json["preparation"]["environments"][0]["error"]["message"] == "no wheel\nuv says so"


def test_a_wait_ends_after_its_time_and_says_what_it_waits_for(preparing, run_process, hello):
    preparing("waiting", worker=None, reason="no worker is connected")

    found = run_process("deploy", str(hello), "--wait", "--timeout-s", "0.01")

    assert found.code == 10
    assert "greet: waits: no worker is connected" in found.err


@pytest.mark.parametrize("options", [("--dry-run", "--wait"), ("--timeout-s", "1"), ("--wait", "--timeout-s", "0")])
def test_options_that_do_not_fit_are_refused(run_process, hello, options):
    assert run_process("deploy", str(hello), *options).code == 2
