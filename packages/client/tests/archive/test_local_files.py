"""Files of the deploying machine that images add: which are uploaded, where they lie, and what is refused."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apothic import ApothicError, Image, TooLargeError
from apothic._archive import Packed, pack
from apothic._placed_files import AddedFiles, with_added
from apothic._sources import find_sources
from apothic.wire.images import ImageSpec, image_problems


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an app, which is the current one."""
    folder = plant(tmp_path / "project", {"app.py": ""})
    monkeypatch.chdir(folder)
    return folder


def packed(here: Path, *images: Image) -> Packed:
    """Pack the app with functions f0, f1, … of these images."""
    added = {f"f{n}": AddedFiles(one.spec.workdir, one.local_files) for n, one in enumerate(images)}
    return pack(here / "app.py", search_path=[], added=added)


def paths(found: Packed) -> list[str]:
    return [file.path for file in found.files]


def refused(here: Path, *images: Image) -> ApothicError:
    with pytest.raises(ApothicError) as caught:
        packed(here, *images)
    return caught.value


BASE = Image.debian_slim()


def added(*files: tuple[str, str]) -> Image:
    image = BASE
    for path, place in files:
        image = image.add_local_file(path, place)
    return image


def test_without_a_place_files_lie_in_the_working_folder_under_their_own_names(here: Path):
    plant(here, {"data/a.csv": "", "data/deep/b.csv": "", "model.bin": "x"})
    found = packed(here, BASE.add_local_dir("data").add_local_file("model.bin"))

    assert paths(found) == ["app.py", "data/a.csv", "data/deep/b.csv", "model.bin"]
    assert found.mounts == {"f0": {}}


def test_places_are_relative_to_the_working_folder_or_absolute(here: Path):
    plant(here, {"a.txt": "1", "kit/b.txt": "2"})
    image = (
        BASE.workdir("/srv/run")
        .add_local_file("a.txt")
        .add_local_file("a.txt", "/app/in/")
        .add_local_dir("kit", "/data/kit")
    )
    found = packed(here, image)

    assert paths(found) == ["app.py", "in/a.txt", "local-files/1/data/kit/b.txt", "local-files/1/srv/run/a.txt"]
    assert found.mounts["f0"] == {
        "/srv/run/a.txt": "local-files/1/srv/run/a.txt",
        "/data/kit": "local-files/1/data/kit",
    }
    assert image_problems(ImageSpec("3.11", mounts=found.mounts["f0"])) == []


def test_files_inside_an_added_folder_are_shown_with_it_and_images_do_not_share_what_differs(here: Path):
    plant(here, {"one/a": "1", "two/a": "2", "extra": "e"})
    first = BASE.add_local_dir("one", "/data").add_local_file("extra", "/data/more/extra")
    second = BASE.add_local_dir("two", "/data")
    found = packed(here, first, second, first)

    assert paths(found) == ["app.py", "local-files/1/data/a", "local-files/1/data/more/extra", "local-files/2/data/a"]
    assert found.mounts["f0"] == found.mounts["f2"] == {"/data": "local-files/1/data"}
    assert found.mounts["f1"] == {"/data": "local-files/2/data"}


def test_hidden_ignored_and_installed_files_of_a_folder_stay_here(here: Path):
    plant(
        here / "data",
        {
            "kept.txt": "",
            ".hidden": "",
            ".env": "SECRET",
            ".git/config": "",
            ".venv/pyvenv.cfg": "",
            "env/pyvenv.cfg": "",
            "env/lib/x.py": "",
            "__pycache__/x.pyc": "",
            ".gitignore": "*.log\nbuild/\n",
            "a.log": "",
            "build/x": "",
            "sub/.apothicignore": "draft*\n",
            "sub/draft1": "",
            "sub/final": "",
        },
    )
    plant(here, {".gitignore": "data/\n"})  # of a folder above: it was named all the same

    found = packed(here, BASE.copy_local_dir("data"))

    assert paths(found) == ["app.py", "data/kept.txt", "data/sub/final"]
    assert found.notes == (f"hidden files of {here / 'data'} are not uploaded: .env, .hidden",)


def test_links_inside_a_folder_are_followed_and_those_that_leave_it_are_refused(here: Path, tmp_path: Path):
    plant(here, {"data/real.txt": "1", "data/sub/x": "2"})
    plant(tmp_path, {"outside/secret.txt": "s"})
    (here / "data/link.txt").symlink_to("real.txt")
    (here / "data/again").symlink_to("sub")
    (here / "data/sub/loop").symlink_to("..")
    whole = packed(here, BASE.add_local_dir("data"))
    refusals = []
    for target in (tmp_path / "outside/secret.txt", tmp_path / "outside", "nowhere"):
        (here / "data/bad").symlink_to(target)
        refusals.append(refused(here, BASE.add_local_dir("data")).code)
        (here / "data/bad").unlink()

    assert paths(whole) == ["app.py", "data/again/x", "data/link.txt", "data/real.txt", "data/sub/x"]
    assert refusals == ["link_outside"] * 3


@pytest.mark.parametrize(
    ("files", "image", "code", "says"),
    [
        ({"server.pem": ""}, lambda: BASE.add_local_file("server.pem"), "secret_refused", "looks like a secret"),
        ({"d/id_rsa": ""}, lambda: BASE.add_local_dir("d"), "secret_refused", "id_rsa"),
        ({"b.py": ""}, lambda: BASE.add_local_file("b.py", "app.py"), "place_taken", "would both lie at app.py"),
        ({"b": "", "c": ""}, lambda: added(("b", "/srv/x"), ("c", "/srv/x")), "place_taken", "lie at /srv/x"),
        ({"b": "", "c": ""}, lambda: added(("b", "x"), ("c", "x/c")), "place_taken", "lie at x"),
        ({"b": ""}, lambda: BASE.add_local_file("b", "/tmp"), None, "nothing can be added at /tmp"),
        ({"d/.hidden": ""}, lambda: BASE.add_local_dir("d"), None, "no files that can be added"),
        ({"b": ""}, lambda: BASE.add_local_file("b", "new\nline"), None, "printable"),
        ({"b": ""}, lambda: BASE.add_local_file("b", "/app"), None, "cannot be uploaded as ''"),
    ],
)  # fmt: skip
def test_a_deploy_says_what_cannot_be_added(here: Path, files, image, code, says):
    plant(here, files)
    error = refused(here, image())

    assert says in str(error)
    assert code is None or error.code == code


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda: BASE.add_local_file("missing"), "cannot be read"),
        (lambda: BASE.add_local_file("folder"), "add_local_dir"),
        (lambda: BASE.add_local_dir("file"), "add_local_file"),
        (lambda: BASE.add_local_file("file", "/etc/passwd"), "/app, /data"),
        (lambda: BASE.add_local_file("file", "../up"), "without .."),
        (lambda: BASE.add_local_file("file", ""), "below the working folder"),
        (lambda: BASE.add_local_file(7), "the path of"),
        (lambda: BASE.add_local_python_source(), "at least one"),
        (lambda: BASE.add_local_python_source("no_such_module_here"), "can be imported here"),
        (lambda: BASE.add_local_python_source("sys"), "written in Python"),
        (lambda: BASE.add_local_python_source("a.b"), "without dots"),
    ],
)
def test_mistakes_are_told_where_they_are_written(here: Path, add, says):
    plant(here, {"file": "", "folder/x": ""})
    with pytest.raises(ApothicError, match=says):
        add()


def test_what_is_no_regular_file_is_refused(here: Path):
    (here / "data").mkdir()
    os.mkfifo(here / "data/pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(here / "plug"))
        with pytest.raises(ApothicError, match="existing file"):
            BASE.add_local_file("plug")

    assert "no regular file" in str(refused(here, BASE.add_local_dir("data")))


def test_a_folder_that_is_too_full_is_refused_before_its_files_are_read(here: Path):
    (here / "data").mkdir()
    for number in range(10):
        os.close(os.open(here / f"data/{number}", os.O_CREAT, 0o000))
    sources = find_sources(here / "app.py", search_path=[])
    image = BASE.add_local_dir("data")
    with pytest.raises(TooLargeError, match=r"data: an app may have at most 9 files"):
        with_added(sources, {"f": AddedFiles("", image.local_files)}, entries_max=9)


def test_python_source_is_found_as_import_finds_it_and_its_packages_count(here: Path, tmp_path: Path, monkeypatch):
    plant(
        tmp_path / "elsewhere",
        {
            "kit/__init__.py": "raise RuntimeError('imported')\n",
            "kit/part.py": "import numpy_like_thing\nfrom kit import other\n",
            "kit/table.csv": "",
            "single.py": "import json\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    found = packed(here, BASE.add_local_python_source("kit", "single"))

    assert paths(found) == ["app.py", "kit/__init__.py", "kit/part.py", "single.py"]
    assert found.imports == ("numpy_like_thing",)
    assert "kit" not in sys.modules


def test_equal_images_are_equal_with_their_files_too(here: Path):
    plant(here, {"a": "", "b": ""})
    one, same, other = (BASE.add_local_file(name, "x") for name in ("a", "a", "b"))

    assert one == same
    assert one.image_id == same.image_id != other.image_id
    assert one.add_local_file("a", "x") == one


def test_on_a_worker_files_of_the_deploying_machine_are_not_looked_for(tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "from apothic import Image\n"
        "base = Image.debian_slim()\n"
        "images = [base.add_local_file('x'), base.add_local_dir('y', '/data'), base.add_local_python_source('zz'),\n"
        "    base.copy_local_file('x'), base.copy_local_dir('y'), base.pip_install_from_requirements('r.txt'),\n"
        "    base.uv_pip_install_from_pyproject('pyproject.toml'), base.env_file('.env'), Image.from_dockerfile('D')]\n"
    )
    program = "import sys; from pathlib import Path; from apothic._loading import load_module\n"
    program += "m = load_module(Path(sys.argv[1]), 'app'); print(sum(one == m.base for one in m.images))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "APOTHIC_API_SOCKET": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("8", "")


@pytest.mark.parametrize(
    "mounts",
    [
        {"relative": "x"},
        {"/etc/x": "x"},
        {"/app/x": "x"},
        {"/tmp": "x"},
        {"/srv/../etc": "x"},
        {"/srv//x": "x"},
        {"/srv/x": "/etc/passwd"},
        {"/srv/x": "../x"},
        {"/srv/x": ""},
        {"/srv": "a", "/srv/x": "b"},
        {f"/srv/{n}": "x" for n in range(257)},
    ],
    ids=str,
)
def test_mounts_that_no_sdk_writes_are_refused(mounts):
    assert image_problems(ImageSpec("3.11", mounts=mounts)) != []
