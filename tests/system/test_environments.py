"""Packages beside functions, from the line in the app's file to the import in the sandbox."""

import json
import subprocess
import zipfile

import pytest

from apothic_worker.testing.index import PackageIndex
from apothic_worker.testing.wheels import make_wheel

from .clouds import until
from .people import APOTHIC

APP = """
from apothic import App, Image

app = App("packaged")
image = Image.debian_slim().pip_install({packages}){more}

@app.function(image=image)
def version():
    import tiny_thing
    return tiny_thing.VERSION

@app.function()
def bare():
    try:
        import tiny_thing
    except ImportError:
        return "nothing"
    return tiny_thing.VERSION

@app.function(image=image)
def place():
    import os, sys
    try:
        open(sys.prefix + "/written", "w")
        is_writable = True
    except OSError:
        is_writable = False
    return [os.getcwd(), os.environ.get("COLOUR"), is_writable, sys.path[-1]]
"""


@pytest.fixture
def shop(stranger, own_cloud):
    """A cloud whose worker installs from a folder of two wheels, by uv's own file of settings."""
    wheels = stranger.home / "wheels"
    for number in ("1.0", "2.0"):
        make_wheel(wheels, "tiny-thing", number)
    make_wheel(wheels, "needs-old", requires=["tiny-thing<2"])
    stranger.write(".config/uv/uv.toml", f'no-index = true\nfind-links = ["{wheels}"]\n')
    return own_cloud()


def deploy(person, packages, more=""):
    """Deploy the app with these packages; return the deployment's id."""
    file = person.write("packaged.py", APP.format(packages=packages, more=more))
    return person.apothic("deploy", file, "--json").ok().json["deployment_id"]


def events_of(cloud, deployment, kind):
    """Return what the events of one kind of a deployment say, in order."""
    path = f"/v1/deployments/{deployment}/events?types={kind}"
    page = cloud.request("GET", path, headers={"Accept": "application/json"}).json
    return [event["data"] for event in page["events"]]


def test_a_function_has_the_packages_of_its_image_and_others_have_none(shop, stranger):
    first = deploy(stranger, "'tiny-thing<2'", ".env(COLOUR='red', N=1).workdir('/srv/here')")
    called = [shop.outcome(shop.spawn("packaged", name)) for name in ("version", "bare", "place")]
    log = [line["line"] for line in events_of(shop, first, "deployment.build_log")]
    second = deploy(stranger, "'tiny-thing'")
    later = shop.outcome(shop.spawn("packaged", "version"))

    assert [outcome["result"] for outcome in called[:2]] == ["1.0", "nothing"]
    assert called[2]["result"] == ["/srv/here", "red", False, "/apothic"]
    assert " + tiny-thing==1.0" in log
    assert [built["took_ms"] > 0 for built in events_of(shop, first, "deployment.built")] == [True]
    assert later["result"] == "2.0"
    assert len(events_of(shop, second, "deployment.built")) == 1


def test_a_build_goes_on_while_the_server_is_killed_and_started_again(stranger, own_cloud):
    make_wheel(stranger.home / "wheels", "tiny-thing")
    with PackageIndex(stranger.home / "wheels") as index:
        stranger.write(".config/uv/uv.toml", f'[[index]]\nurl = "{index.url}"\ndefault = true\n')
        first = own_cloud()
        index.hold()
        deployment = deploy(stranger, "'tiny-thing'")
        job = first.spawn("packaged", "version")
        assert index.was_asked.wait(60)
        first.kill()
        second = own_cloud()
        reason = until(lambda: second.job(job)["waiting_reason"], "a reason")
        index.may_answer.set()
        outcome = second.outcome(job)
        log = [line["line"] for line in events_of(second, deployment, "deployment.build_log")]

    assert reason.startswith("image_building: worker local makes the environment ready: tiny-thing")
    assert outcome["result"] == "1.0"
    assert log.count(" + tiny-thing==1.0") == 1
    assert len(events_of(second, deployment, "deployment.built")) == 1


def test_a_deploy_that_waits_does_so_over_the_death_of_everything_and_no_call_waits_then(stranger, own_cloud):
    make_wheel(stranger.home / "wheels", "tiny-thing")
    with PackageIndex(stranger.home / "wheels") as index:
        stranger.write(".config/uv/uv.toml", f'[[index]]\nurl = "{index.url}"\ndefault = true\n')
        first = own_cloud()
        index.hold()
        file = stranger.write("packaged.py", APP.format(packages="'tiny-thing'", more=""))
        deploying = stranger.popen(
            *(APOTHIC, "deploy", file, "--wait", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert index.was_asked.wait(60)
        first.kill_everything()
        second = own_cloud("--port", first.url.rpartition(":")[2])
        index.may_answer.set()
        out, said = deploying.communicate(timeout=90)
    told = json.loads(out)
    outcome = second.outcome(second.spawn("packaged", "version"))

    assert (deploying.returncode, said) == (0, "")
    assert [one["status"] for one in told["preparation"]["environments"]] == ["ready", "ready"]
    assert outcome["result"] == "1.0"
    assert len(events_of(second, told["deployment_id"], "deployment.built")) == 1


def test_a_deploy_that_waits_fails_with_the_build(shop, stranger):
    file = stranger.write("packaged.py", APP.format(packages="'needs-old', 'tiny-thing>=2'", more=""))

    failed = stranger.apothic("deploy", file, "--wait")

    assert failed.status == 100
    assert "no versions of the packages fit together" in failed.err
    assert "Try:   `apothic image logs APP`" in failed.err


def test_a_prune_removes_what_no_live_version_needs_and_a_rollback_builds_it_again(shop, stranger):
    for packages in ("'tiny-thing<2'", "'tiny-thing'"):
        file = stranger.write("packaged.py", APP.format(packages=packages, more=""))
        stranger.apothic("deploy", file, "--wait").ok()
    dry = stranger.apothic("image", "prune", "--dry-run", "--json").ok().json
    pruned = stranger.apothic("image", "prune", "--yes", "--json").ok().json
    again = stranger.apothic("image", "prune", "--yes", "--json").ok().json
    listed = stranger.apothic("image", "list", "--json").ok().json["items"]
    stranger.apothic("rollback", "packaged").ok()
    outcome = shop.outcome(shop.spawn("packaged", "version"))

    assert len(dry["removed"]) == 1
    assert [one["environment"] for one in pruned["removed"]] == [one["environment"] for one in dry["removed"]]
    assert pruned["freed_bytes"] > 0
    assert again["removed"] == []
    assert [len(one["held"]) for one in listed if one["environment"]] == [1]
    assert outcome["result"] == "1.0"


def test_a_deployment_with_packages_that_are_there_builds_nothing(shop, stranger):
    deploy(stranger, "'tiny-thing'")
    shop.outcome(shop.spawn("packaged", "version"))
    again = deploy(stranger, "'tiny-thing'", ".env(COLOUR='blue')")
    outcome = shop.outcome(shop.spawn("packaged", "version"))

    assert outcome["result"] == "2.0"
    assert events_of(shop, again, "deployment.built") == []


def test_jobs_fail_in_words_when_packages_do_not_fit_and_run_after_a_deploy_that_does(shop, stranger):
    broken = deploy(stranger, "'needs-old', 'tiny-thing>=2'")
    jobs = [shop.spawn("packaged", "version") for _ in range(3)]
    outcomes = [shop.outcome(job) for job in jobs]
    told = events_of(shop, broken, "deployment.build_failed")
    deploy(stranger, "'needs-old'")
    mended = shop.outcome(shop.spawn("packaged", "version"))

    assert [(outcome["status"], outcome["error"]["code"]) for outcome in outcomes] == [
        ("failed", "image_build_failed")
    ] * 3
    assert "no versions of the packages fit together" in outcomes[0]["error"]["message"]
    assert "needs-old" in outcomes[0]["error"]["message"]
    assert [event["message"] for event in told] == [outcomes[0]["error"]["message"]]
    assert mended["result"] == "1.0"


def test_jobs_wait_for_an_image_builder_and_say_so(shop, stranger):
    deploy(stranger, "'tiny-thing'", ".apt_install('ffmpeg')")
    job = shop.spawn("packaged", "version")
    reason = until(lambda: shop.job(job)["waiting_reason"], "a reason")
    shop.request("POST", f"/v1/jobs/{job}/cancel")

    assert reason.startswith("image_needs_builder: ")
    assert "apt_install ffmpeg" in reason


def test_files_that_an_image_adds_are_found_where_it_says_and_cannot_be_changed(shop, stranger):
    for name, text in {
        "kit/data.txt": "kit",
        "model.bin": "model",
        "notes.txt": "notes",
        "wanted.txt": "# none",
    }.items():
        stranger.write(f"shop/{name}", text)
    stranger.write("lib/faraway.py", "WHERE = __file__")
    file = stranger.write(
        "shop/adding.py",
        """
        import os
        from apothic import App, Image

        app = App("adding")
        base = Image.debian_slim().pip_install_from_requirements("wanted.txt").add_local_python_source("faraway")
        image = base.add_local_dir("kit", "/data/kit").add_local_file("model.bin").workdir("/srv/run")

        @app.function(image=image.add_local_file("notes.txt", "/app/in/"))
        def look():
            import faraway
            places = ["/data/kit/data.txt", "model.bin", "/app/in/notes.txt"]
            try:
                open("/data/kit/new", "w")
            except OSError:
                places.append("/data/kit/data.txt")
            open("mine", "w").close()
            return [open(place).read() for place in places] + [faraway.WHERE, os.getcwd()]
        """,
    )
    cwd = file.parent
    stranger.apothic("deploy", file, cwd=cwd, env={"PYTHONPATH": str(stranger.home / "lib")}).ok()
    outcome = shop.outcome(shop.spawn("adding", "look"))

    assert outcome["error"] is None
    assert outcome["result"] == ["kit", "model", "notes", "kit", "/app/faraway.py", "/srv/run"]


def test_a_function_without_an_image_has_what_its_file_imports_loaded_before_the_runner_is_forked(shop, stranger):
    with zipfile.ZipFile(stranger.home / "wheels/tiny_thing-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(stranger.home / "site")
    file = stranger.write(
        "imports.py",
        """
        import os

        import tiny_thing
        from apothic import App

        app = App("imports")
        LOADED_IN = os.getpid()

        @app.function()
        def version():
            return [tiny_thing.VERSION, tiny_thing.__file__.startswith("/env/"), os.getpid() != LOADED_IN]
        """,
    )
    told = stranger.apothic("deploy", file, env={"PYTHONPATH": str(stranger.home / "site")}).ok()

    assert "packages    tiny-thing==1.0" in told.out.splitlines()
    assert shop.outcome(shop.spawn("imports", "version"))["result"] == ["1.0", True, True]
