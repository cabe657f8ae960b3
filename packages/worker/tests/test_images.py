"""Environments as a worker builds, shares, keeps and removes them; uv is the real one, wheels are made here."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apothic.wire.images import (
    BuildLines,
    ImageSpec,
    ImagesTidied,
    Prepared,
    PrepareImage,
    TidyImages,
    environment_id,
)
from apothic_worker.builds import build_environment
from apothic_worker.failures import StartFailed
from apothic_worker.folders import remove
from apothic_worker.images import Environments
from apothic_worker.interpreters import find_interpreters
from apothic_worker.processes import children, descendants, kill_children_but
from apothic_worker.testing.index import PackageIndex
from apothic_worker.testing.wheels import make_wheel

pytestmark = pytest.mark.anyio

HERE = find_interpreters()
PYTHON = sorted(HERE)[0]
CERTIFICATE = Path(__file__).with_name("index.pem")
"""For 127.0.0.1, signed by itself, with its key."""


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """The folder that is the package index of these tests."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "tiny-thing", "1.0")
    make_wheel(folder, "tiny-thing", "2.0")
    make_wheel(folder, "needs-old", requires=["tiny-thing<2"])
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    settings = tmp_path / "index.toml"
    settings.write_text(f"no-index = true\nfind-links = [{str(folder)!r}]\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
    return folder


def opened(tmp_path: Path, **options: Any) -> Environments:
    """Environments as a worker that starts opens them: with nothing in the scratch folder."""
    scratch = tmp_path / "scratch"
    remove(scratch)
    scratch.mkdir()
    return Environments(tmp_path / "environments", scratch, HERE, **options)


def image(*requirements: str, python: str = PYTHON) -> ImageSpec:
    return ImageSpec(python, requirements)


async def asked(environments: Environments, what: ImageSpec, deployment: str = "d1") -> list[BuildLines | Prepared]:
    """Have an environment prepared and return what was said, the answer last."""
    said: list[BuildLines | Prepared] = []
    answered = asyncio.Event()

    def told(item: BuildLines | Prepared) -> None:
        said.append(item)
        if isinstance(item, Prepared):
            answered.set()

    environments.prepare(PrepareImage("o1", deployment, environment_id(what), what), told)
    async with asyncio.timeout(60):
        await answered.wait()
    return said


def lines(said: list[BuildLines | Prepared]) -> list[str]:
    return [line for item in said if isinstance(item, BuildLines) for line in item.lines]


async def test_an_environment_is_built_once_and_then_found(tmp_path, wheels):
    environments = opened(tmp_path)
    said = await asked(environments, image("tiny-thing"))
    again = await asked(environments, image("tiny-thing"), "d2")
    folder = await environments.take("o1", "d3", image("tiny-thing"))
    await environments.close()

    assert " + tiny-thing==2.0" in lines(said)
    assert (said[-1].error, said[-1].took_ms > 0) == (None, True)
    assert again == [Prepared("d2", environment_id(image("tiny-thing")))]
    compiled = list(folder.rglob("tiny_thing.*.pyc"))
    assert len(compiled) == 1
    assert list((folder / "lib").glob("python*/site-packages/tiny_thing.py"))


async def test_many_who_want_one_environment_at_once_get_one_build(tmp_path, wheels):
    environments = opened(tmp_path)
    taken = await asyncio.gather(*(environments.take("o1", f"d{n}", image("tiny-thing")) for n in range(8)))
    await environments.close()

    assert len(set(taken)) == 1
    assert len(list((tmp_path / "environments/by-org/o1").iterdir())) == 1
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_build_goes_on_when_a_zygote_ends_beside_it(tmp_path, wheels):
    environments = opened(tmp_path)
    others = set(children(os.getpid()))  # a database of other tests is no orphan of this worker
    taking = asyncio.ensure_future(environments.take("o1", "d1", image("tiny-thing")))
    ends = 0
    while not taking.done():  # the whole time: whatever moment uv is in, it is no orphan
        kill_children_but(others)
        ends += 1
        await asyncio.wait([taking], timeout=0.001)
    await environments.close()

    assert ends > 1
    assert list(taking.result().rglob("tiny_thing.py"))


async def test_organisations_share_no_environment(tmp_path, wheels):
    environments = opened(tmp_path)
    first, second = [await environments.take(org, "d1", image("tiny-thing")) for org in ("o1", "o2")]
    await environments.close()

    assert first != second


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("no-such-package-at-all",), "does not exist"),
        (("needs-old", "tiny-thing>=2"), "no versions of the packages fit together"),
    ],
)
async def test_a_build_that_fails_says_why_and_is_tried_again_by_a_new_deployment(tmp_path, wheels, wanted, said):
    environments = opened(tmp_path)
    answer = (await asked(environments, image(*wanted)))[-1]
    make_wheel(wheels, "no-such-package-at-all")
    make_wheel(wheels, "needs-old", "3.0")
    with pytest.raises(StartFailed) as remembered:
        await environments.take("o1", "d1", image(*wanted))
    later = (await asked(environments, image(*wanted), "d2"))[-1]
    await environments.close()

    assert answer.error.code == "image_build_failed"
    assert said in answer.error.message.splitlines()[0]
    assert wanted[0] in answer.error.message
    assert remembered.value.error == answer.error
    assert later.error is None


async def test_a_build_that_failed_is_tried_again_after_a_minute(tmp_path, wheels):
    now = [0.0]
    environments = opened(tmp_path, clock=lambda: now[0])
    with pytest.raises(StartFailed):
        await environments.take("o1", "d1", image("late"))
    make_wheel(wheels, "late")
    now[0] = 59.0
    with pytest.raises(StartFailed):
        await environments.take("o1", "d1", image("late"))
    now[0] = 60.0
    folder = await environments.take("o1", "d1", image("late"))
    await environments.close()

    assert list(folder.rglob("late.py"))


async def test_a_package_without_a_wheel_is_refused_and_nothing_of_it_runs(tmp_path, wheels):
    import io
    import tarfile

    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='evil', version='1.0')\n".encode()
    with tarfile.open(wheels / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, data in (("setup.py", setup), ("PKG-INFO", b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")):
            entry = tarfile.TarInfo(f"evil-1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    environments = opened(tmp_path)
    answer = (await asked(environments, image("evil")))[-1]
    await environments.close()

    assert "has no wheel" in answer.error.message
    assert not ran.exists()


async def test_a_python_that_is_not_here_is_refused_with_those_that_are(tmp_path, wheels):
    environments = opened(tmp_path)
    with pytest.raises(StartFailed) as refused:
        await environments.take("o1", "d1", image("tiny-thing", python="3.99"))
    await environments.close()

    assert refused.value.error.code == "python_not_available"
    assert all(version in refused.value.error.message for version in ("3.99", *HERE))


KILLED = """
import asyncio, sys
from pathlib import Path
from apothic.wire.images import ImageSpec
from apothic_worker.images import Environments
from apothic_worker.interpreters import find_interpreters

async def main(root, python):
    environments = Environments(root / "environments", root / "scratch", find_interpreters())
    await environments.take("o1", "d1", ImageSpec(python, ("tiny-thing",)))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def start_building(folder: Path) -> subprocess.Popen[bytes]:
    """Build an environment in a process of its own, which stands for a worker."""
    return subprocess.Popen([sys.executable, "-c", KILLED, str(folder), PYTHON])


async def test_a_build_that_was_killed_half_way_is_done_again_and_nothing_of_it_is_left(tmp_path, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    with PackageIndex(wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        opened(tmp_path)
        index.hold()
        worker = start_building(tmp_path)
        await asyncio.to_thread(index.was_asked.wait, 60)
        half = list((tmp_path / "scratch").iterdir())
        below = descendants(worker.pid)
        worker.kill()
        worker.wait()
        lasting = [pid for pid in below if not await asyncio.to_thread(has_ended, pid)]
        index.may_answer.set()
        environments = opened(tmp_path)
        folder = await environments.take("o1", "d1", image("tiny-thing"))
        await environments.close()

    assert len(half) == 1
    assert (len(below) > 0, lasting) == (True, [])
    assert list(folder.rglob("tiny_thing.py"))
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_build_whose_installer_is_killed_says_that_and_not_that_it_failed(tmp_path, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    with PackageIndex(wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        environments = opened(tmp_path)
        others = set(children(os.getpid()))
        index.hold()
        asking = asyncio.ensure_future(asked(environments, image("tiny-thing")))
        await asyncio.to_thread(index.was_asked.wait, 60)
        for pid in set(children(os.getpid())) - others:
            os.kill(pid, signal.SIGKILL)
        answer = (await asking)[-1]
        index.may_answer.set()
        await environments.close()

    assert answer.error.code == "image_build_failed"
    assert answer.error.message.startswith("uv was killed from outside")


async def test_a_build_that_is_stopped_with_its_worker_leaves_nothing(tmp_path, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    with PackageIndex(wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        environments = opened(tmp_path)
        others = set(children(os.getpid()))
        index.hold()
        taking = asyncio.ensure_future(environments.take("o1", "d1", image("tiny-thing")))
        await asyncio.to_thread(index.was_asked.wait, 60)
        await environments.close()
        await asyncio.gather(taking, return_exceptions=True)
        left = set(children(os.getpid())) - others

    assert taking.cancelled()
    assert left == set()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "environments/by-org").exists()


def has_ended(pid: int) -> bool:
    """Wait until a process is dead, 30 s at most; whoever has to wait for it may not have done so yet."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 30.0)[0])
    finally:
        os.close(process)


async def test_an_environment_that_was_not_on_disk_when_the_machine_went_down_is_not_trusted(tmp_path, wheels):
    first = opened(tmp_path)
    folder = await first.take("o1", "d1", image("tiny-thing"))
    await first.close()
    next(folder.rglob("tiny_thing.py")).unlink()
    record = folder.parent / "environment.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "another"}))
    again = opened(tmp_path)
    rebuilt = await again.take("o1", "d1", image("tiny-thing"))
    await again.close()

    assert list(rebuilt.rglob("tiny_thing.py"))


async def test_environments_beyond_the_budget_go_the_one_used_longest_ago_first_and_none_in_use(tmp_path, wheels):
    environments = opened(tmp_path)
    folders = {}
    for age, version in ((30, "==1.0"), (20, "==2.0"), (10, "")):
        wanted = image(f"tiny-thing{version}")
        folders[version] = (await environments.take("o1", "d1", wanted)).parent
        os.utime(folders[version], (1_000_000 - age, 1_000_000 - age))
        if version:
            environments.give_back(folders[version] / "env")
    await environments.close()
    sizes = [json.loads((folder / "environment.json").read_text())["size_bytes"] for folder in folders.values()]
    await environments.collect(sum(sizes[1:]))
    after_first = [folder.is_dir() for folder in folders.values()]
    await environments.collect(0)

    assert after_first == [False, True, True]
    assert [folder.is_dir() for folder in folders.values()] == [False, False, True]


async def test_who_was_told_that_an_environment_is_ready_is_told_once_when_it_is_removed(tmp_path, wheels):
    environments = opened(tmp_path)
    first = await asked(environments, image("tiny-thing"), "d1")
    second = await asked(environments, image("tiny-thing"), "d2")
    await environments.collect(0)
    await environments.collect(0)
    await environments.close()

    name = environment_id(image("tiny-thing"))
    assert [said[-1] for said in (first, second)] == [Prepared(one, name, is_gone=True) for one in ("d1", "d2")]
    assert [sum(isinstance(item, Prepared) for item in said) for said in (first, second)] == [2, 2]


async def test_environments_are_made_and_found_where_the_boot_is_hidden(tmp_path, wheels):
    first = opened(tmp_path, boot="")
    await asked(first, image("tiny-thing"))
    await first.close()
    again = opened(tmp_path, boot="")
    said = await asked(again, image("tiny-thing"))
    await again.close()

    assert said == [Prepared("d1", environment_id(image("tiny-thing")))]


@pytest.fixture
def private_index(wheels, monkeypatch):
    """An index with a certificate of its own authority, which wants credentials; it is the only one."""
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with PackageIndex(wheels, certificate=CERTIFICATE, credentials="somebody:s3cret") as index:
        yield index


async def test_packages_come_from_an_index_with_credentials_and_an_authority_of_its_own(
    tmp_path, private_index, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", private_index.url)
    monkeypatch.setenv("PIP_CERT", str(CERTIFICATE))
    environments = opened(tmp_path)
    said = await asked(environments, image("tiny-thing"))
    await environments.close()

    assert said[-1].error is None
    assert "s3cret" not in repr(said)


@pytest.mark.parametrize(
    ("authority", "password", "why"),
    [("", "s3cret", "does not trust the certificate"), (str(CERTIFICATE), "wr0ng", "refuses the credentials")],
    ids=["authority", "password"],
)
async def test_an_index_that_cannot_be_used_is_told_without_its_credentials(
    tmp_path, private_index, monkeypatch, authority, password, why
):
    monkeypatch.setenv("UV_DEFAULT_INDEX", private_index.url.replace("s3cret", password))
    if authority:
        monkeypatch.setenv("SSL_CERT_FILE", authority)
    environments = opened(tmp_path)
    said = await asked(environments, image("tiny-thing"))
    await environments.close()

    assert why in said[-1].error.message.splitlines()[0]
    assert password not in repr(said)
    assert "somebody" not in repr(said)


async def test_credentials_of_the_index_are_never_told(tmp_path, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "2")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://somebody:s3cret@127.0.0.1:9/simple")
    environments = opened(tmp_path)
    said = await asked(environments, image("not-here"))
    await environments.close()

    assert "cannot be reached" in said[-1].error.message
    assert "s3cret" not in repr(said)
    assert "somebody" not in repr(said)


def test_uv_gets_what_an_operator_set_for_it_or_for_pip_and_no_other_secret():
    given = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "UV_INDEX": "https://one/simple",
        "UV_PYTHON": "3.9",
        "PIP_EXTRA_INDEX_URL": "https://two/simple",
        "PIP_CERT": "/ca.pem",
        "PIP_INDEX_URL": "https://three/simple",
        "AWS_SECRET_ACCESS_KEY": "k",
    }
    translated = build_environment(given)

    assert translated == {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "UV_INDEX": "https://one/simple",
        "UV_DEFAULT_INDEX": "https://three/simple",
        "SSL_CERT_FILE": "/ca.pem",
        "PYTHONHASHSEED": "0",
        "UV_SYSTEM_CERTS": "1",
    }


async def tidied(environments: Environments, keep: list[str] | None, org: str = "o1") -> ImagesTidied:
    """Have environments tidied and return the answer."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    environments.tidy(TidyImages(7, org, keep), answer.set_result)
    async with asyncio.timeout(60):
        return await answer


async def test_what_nobody_needs_is_removed_with_its_share_of_the_cache(tmp_path, wheels):
    make_wheel(wheels, "kept")
    environments = opened(tmp_path)
    idle, kept, used = image("tiny-thing<2", "kept"), image("kept"), image("needs-old")
    for what in (idle, kept):
        await asked(environments, what)
    taken = await environments.take("o1", "d1", used)
    before = await tidied(environments, None)
    foreign = await tidied(environments, [], org="o2")
    told = await tidied(environments, [environment_id(kept)])
    after = await tidied(environments, None)
    environments.give_back(taken)
    cached = {path.name for path in (tmp_path / "environments/cache").glob("wheels-*/*/*/*")}

    assert sorted((one.environment, one.is_in_use) for one in before.items) == sorted(
        [(environment_id(idle), False), (environment_id(kept), False), (environment_id(used), True)]
    )
    assert all(one.size_bytes > 0 and one.built_at > 0 for one in before.items)
    assert (foreign.items, foreign.freed_bytes) == ([], 0)
    assert [one.environment for one in told.items if one.is_removed] == [environment_id(idle)]
    assert (told.number, told.freed_bytes > 0) == (7, True)
    assert sorted(one.environment for one in after.items) == sorted([environment_id(kept), environment_id(used)])
    assert {"kept", "needs-old", "tiny-thing"} == cached  # tiny-thing is beside needs-old, too
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (await asked(environments, idle))[-1].took_ms > 0

    last = await tidied(environments, [])
    assert len([one for one in last.items if one.is_removed]) == 3
    assert list((tmp_path / "environments/cache").glob("archive-*/*")) == []


async def test_a_question_about_no_org_gets_no_answer(tmp_path, wheels):
    environments = opened(tmp_path)
    said: list[Any] = []
    environments.tidy(TidyImages(1, "../..", []), said.append)
    await tidied(environments, [])

    assert said == []
